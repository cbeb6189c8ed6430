"""The actors of a story: peers lent by the adapters, found by entry point, behind a narrow face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import entry_points
from typing import Any

from gateway.domain.errors import ConfigError, ConfigProblem
from gateway.ports.clock import Clock
from gateway.testing.judge import Reported
from gateway.testing.physics import LimitBlock
from gateway.testing.stage import DSO, Stage
from gateway.testing.story import Forecast

ENTRY_POINTS = "gridgate.adapters"

HEARTBEAT_S = 60
"""Story seconds between the heartbeats that the DSO wants of the gateway."""


def peer_factory(adapter: str, role: str) -> Any:
    """What an adapter lends for a role.

    Raises:
        ConfigError: no such adapter is installed, or it lends nothing for that role.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if adapter not in found:
        text = f'the story needs the adapter "{adapter}"; installed: {", ".join(sorted(found)) or "none"}'
        raise ConfigError((ConfigProblem("demo.no-adapter", "", 0, adapter, text),))
    try:
        return found[adapter].load().demo_peer(role)
    except KeyError:
        text = f'adapter "{adapter}" lends no "{role}"'
        raise ConfigError((ConfigProblem("demo.no-role", "", 0, role, text),)) from None


@dataclass(frozen=True, slots=True)
class Told:
    """A forecast block in the words of the lent peer: W of the three-phase sum."""

    start: datetime
    end: datetime
    capacity: int
    unit: str = "W"
    phase: str = "ALL"


class Dso:
    """The grid party of the story."""

    def __init__(self, stage: Stage, group: str, clock: Clock) -> None:
        party = stage.pki.parties[DSO]
        grid = stage.pki.listeners["grid"]
        self._group = group
        self._peer = peer_factory("oscp", "cp")(
            fp_url="https://127.0.0.1:1",
            token=stage.token,
            clock=clock,
            client=party,
            server_certificate=party.certificate,
            server_key=party.key,
            client_ca=grid.client_ca,
            heartbeat_interval_s=HEARTBEAT_S,
        )

    async def start(self) -> str:
        """Listen; host and port."""
        await self._peer.start()
        return str(self._peer.url).partition("://")[2]

    async def stop(self) -> None:
        """Fall silent."""
        await self._peer.stop()

    async def join(self, gateway_url: str) -> None:
        """Register, shake hands, send heartbeats from now on."""
        self._peer.fp_url = gateway_url
        await self._peer.register()
        await self._peer.handshake()
        self._peer.start_heartbeats()

    async def forecast(self, kind: Forecast, blocks: Sequence[LimitBlock]) -> str:
        """Post a forecast; its request id once it was acknowledged."""
        told = [Told(b.start, b.end, round(b.watts)) for b in blocks]
        return str(await self._peer.forecast(self._group, kind.value, told))

    def heartbeats(self) -> tuple[int, int]:
        """How many heartbeats were acknowledged to us, and how many came."""
        sent = sum(1 for s in self._peer.sent if s.endpoint == "heartbeat" and s.status == 204)
        return sent, len(self._peer.of("heartbeat"))

    def reports(self) -> list[Reported]:
        """Readings of the group's import register, oldest first."""
        rows = [
            Reported(_wh(row), datetime.fromisoformat(row["measure_time"]))
            for message in self._peer.of("update_group_measurements")
            for row in message.body["measurements"]
            if row["direction"] == "IMPORT" and row.get("energy_type", "TOTAL") == "TOTAL"
        ]
        return sorted(rows, key=lambda r: r.measured_at)

    def complaints(self) -> int:
        """How many capacity compliance errors came."""
        return len(self._peer.of("group_capacity_compliance_error"))


def _wh(row: dict[str, Any]) -> float:
    return float(row["value"]) * (1000.0 if row["unit"] == "KWH" else 1.0)
