"""Limits out to the fleet. Driven port, implemented by the adapters that speak to stations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.domain.calendar import WHOLE
from gateway.domain.effects import Command
from gateway.domain.events import OperatorActed
from gateway.domain.ids import NodeId, StationId
from gateway.domain.quantities import ALL_PHASES, MilliAmperes, Phase, Volts
from gateway.ports.gate import Inbound, Receipt


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
    """An EVSE as its station numbers it (1.6: connector id, 2.x: EVSE id).

    ``efficiency`` (thousandths): powers in commands and measurements are the grid's side, what the
    station is told and what it measures is the vehicle's, which is that much of it.
    """

    evse: NodeId
    number: int
    phases: tuple[Phase, ...]
    voltage_v: Volts
    max_ma: MilliAmperes
    min_ma: MilliAmperes
    efficiency: int = WHOLE


@dataclass(frozen=True, slots=True)
class StationSettings:
    """A station that may connect, and how it must prove itself.

    ``profile`` is OCPP's security profile (3: client certificate whose CN is ``serial``; 1 and 2:
    HTTP Basic with ``password`` (a reference resolved by the loader)). ``meter_phases`` are the site
    phases at the terminals of the station's own meter.
    """

    id: StationId
    serial: str
    listener: str
    profile: int
    evses: tuple[EvseBinding, ...]
    meter_node: NodeId | None = None
    rate_unit: str = "A"
    password_sha256: str = ""
    meter_phases: tuple[Phase, ...] = ALL_PHASES


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A station that nobody configured: it proved something, was refused, and is remembered.

    ``credential`` tells two of the same name apart: SHA-256 of the certificate, or the first 8 hex
    digits of that of the password. ``serial`` is the certificate's CN; empty with a password.
    """

    station: StationId
    listener: str
    profile: int
    serial: str
    credential: str
    address: str
    first_at: datetime
    last_at: datetime
    times: int


@dataclass(frozen=True, slots=True)
class Approval:
    """A newcomer that an operator let in, for the EVSEs of the configured station ``place``."""

    station: StationId
    place: StationId
    listener: str
    profile: int
    serial: str
    credential: str
    approved_at: datetime
    operator: str
    reason: str


class StationOperator(Protocol):
    """Which stations an operator lets in beside the configured ones; driven port, where an adapter can."""

    def newcomers(self) -> Sequence[Newcomer]:
        """Who knocked of late and is not let in; the newest first."""
        ...

    def approvals(self) -> Sequence[Approval]:
        """Who was let in, also where the configuration has no such place any more."""
        ...

    async def approve(self, event: OperatorActed, inbound: Inbound, evse: NodeId, credential: str) -> Receipt:
        """Let the newcomer ``event.subject`` in, instead of the station that is configured at ``evse``.

        It serves all EVSEs of that station, which counts as unproven from then on.

        Raises:
            ActionRefused: nobody of that name and credential knocked, or its place is not free.
            StoreError: not stored; nothing changed.
        """
        ...

    async def revoke(self, event: OperatorActed, inbound: Inbound) -> Receipt:
        """Take the approval of ``event.subject`` back and end its connection; its place is the configured one's again.

        Raises:
            ActionRefused: it was never approved.
            StoreError: not stored; the approval holds.
        """
        ...
