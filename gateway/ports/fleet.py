"""Limits out to the fleet. Driven port, implemented by the adapters that speak to stations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.domain.effects import Command
from gateway.domain.ids import NodeId, StationId
from gateway.domain.quantities import MilliAmperes, Phase, Volts


class LimitActuator(Protocol):
    """Who can carry a limit to a station."""

    def serves(self, station: StationId) -> bool:
        """Whether this actuator is the one for ``station``."""
        ...

    def apply(self, command: Command) -> None:
        """Queue a command; never blocks, never raises for a station that is away.

        Its fate comes back as one ``CommandAnswered`` through the gate, exactly once.
        """
        ...


@dataclass(frozen=True, slots=True)
class EvseBinding:
    """An EVSE as its station numbers it (1.6: connector id, 2.x: EVSE id)."""

    evse: NodeId
    number: int
    phases: tuple[Phase, ...]
    voltage_v: Volts
    max_ma: MilliAmperes
    min_ma: MilliAmperes


@dataclass(frozen=True, slots=True)
class StationSettings:
    """A station that may connect, and how it must prove itself.

    ``profile`` is OCPP's security profile (3: client certificate whose CN is ``serial``; 1 and 2:
    HTTP Basic with ``password`` (a reference resolved by the loader)).
    """

    id: StationId
    serial: str
    listener: str
    profile: int
    evses: tuple[EvseBinding, ...]
    meter_node: NodeId | None = None
    rate_unit: str = "A"
    password_sha256: str = ""
