"""The actors of a story: peers lent by the adapters, found by entry point, behind a narrow face."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib.metadata import entry_points
from typing import Any

from gateway.domain.errors import ConfigError, ConfigProblem, GatewayError, ProtocolViolation
from gateway.ports.adapter import ListenerSettings, Trust
from gateway.ports.clock import Clock
from gateway.testing.judge import Reported, Visit
from gateway.testing.physics import LimitBlock
from gateway.testing.stage import DSO, Stage, StationPlan
from gateway.testing.story import CarPlan, Forecast

ENTRY_POINTS = "gridgate.adapters"

NO_CONTENT = 204

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
class PluggedCar:
    """A car in the words of the lent peer. Wh and W."""

    energy_wh: float
    max_w: float
    phases: int = 3


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
        self._clock = clock
        self._promise_s = 2.0 * HEARTBEAT_S
        self._hush = False
        self._beating: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.peer = peer_factory("oscp", "cp")(
            fp_url="https://127.0.0.1:1",
            token=stage.token,
            clock=clock,
            client=party,
            server=ListenerSettings(
                "simulated-dso",
                "127.0.0.1",
                0,
                Trust.MTLS,
                policy="modern",
                certificate=party.certificate,
                key=party.key,
                client_ca=grid.client_ca,
            ),
            heartbeat_interval_s=HEARTBEAT_S,
        )

    async def start(self) -> str:
        """Listen; host and port."""
        await self.peer.start()
        return str(self.peer.url).partition("://")[2]

    async def stop(self) -> None:
        """Leave."""
        self._beating.cancel()
        await self.peer.stop()

    async def join(self, gateway_url: str, promise_s: float = 2 * HEARTBEAT_S) -> None:
        """Register, shake hands, send heartbeats from now on, each promising another within ``promise_s``."""
        self.peer.fp_url = gateway_url
        await self.peer.register()
        await self.peer.handshake()
        self._promise_s = promise_s
        self.speak()

    def speak(self) -> None:
        """Send heartbeats from now on."""
        self._hush = False
        self._beating = asyncio.create_task(self._beat())

    async def fall_silent(self) -> datetime:
        """Stop after the next heartbeat that is acknowledged; the instant for which it promised another."""
        self._hush = True
        await self._beating
        last = next(s for s in reversed(self.peer.sent) if s.endpoint == "heartbeat" and s.status == NO_CONTENT)
        return datetime.fromisoformat(last.body["offline_mode_at"])

    async def _beat(self) -> None:
        while True:
            due = self._clock.now() + timedelta(seconds=0.9 * self.peer.asked_interval_s())
            # A DSO whose gateway is away goes on; what was taken stands in the peer's own list.
            with suppress(GatewayError):
                await self.peer.heartbeat(self._promise_s)
                if self._hush:
                    return
            await self._clock.sleep_until(due)

    async def forecast(self, kind: Forecast, blocks: Sequence[LimitBlock]) -> str:
        """Post a forecast; its request id once it was acknowledged."""
        told = [Told(b.start, b.end, round(b.watts)) for b in blocks]
        return str(await self.peer.forecast(self._group, kind.value, told))

    async def repeat(self, request_id: str) -> None:
        """Post that forecast once more, byte by byte, as one does who is not sure of the answer.

        Raises:
            ProtocolViolation: it was not taken for what it is.
        """
        sent = next(s for s in self.peer.sent if s.request_id == request_id)
        body = json.dumps(sent.body, separators=(",", ":")).encode()
        answer = await self.peer.post(sent.endpoint, body, request_id=request_id)
        if answer.status != NO_CONTENT:
            raise ProtocolViolation(f"the repeated {sent.endpoint} got HTTP {answer.status}")

    def heartbeats(self) -> tuple[int, int]:
        """How many heartbeats were acknowledged to us, and how many came."""
        sent = sum(1 for s in self.peer.sent if s.endpoint == "heartbeat" and s.status == NO_CONTENT)
        return sent, len(self.peer.of("heartbeat"))

    def reports(self) -> list[Reported]:
        """Readings of the group's import register, oldest first."""
        rows = [
            Reported(_wh(row), datetime.fromisoformat(row["measure_time"]))
            for message in self.peer.of("update_group_measurements")
            for row in message.body["measurements"]
            if row["direction"] == "IMPORT" and row.get("energy_type", "TOTAL") == "TOTAL"
        ]
        return sorted(rows, key=lambda r: r.measured_at)

    def complaints(self) -> int:
        """How many capacity compliance errors came."""
        return len(self.peer.of("group_capacity_compliance_error"))


class StationActor:
    """A charging station of the story and the car that stands at it."""

    def __init__(self, plan: StationPlan, stage: Stage, clock: Clock, seed: int) -> None:
        self.plan = plan
        self._stage = stage
        self._clock = clock
        # Meters of the trade are not in step with each other.
        self._meter_interval_s = random.Random(f"{plan.id} {seed}").uniform(8, 12)
        self.peer: Any = None
        self.visits: list[Visit] = []

    async def start(self, url: str) -> None:
        """Connect, boot, report.

        Raises:
            TimeoutError: the other side did not accept it.
        """
        self.peer = peer_factory("ocpp", "station")(
            self.plan.id,
            serial=self.plan.serial,
            url=url,
            clock=self._clock,
            version=self.plan.version,
            identity=self._stage.pki.stations[self.plan.id],
            min_a=self.plan.min_a,
            max_a=self.plan.max_a,
            meter_interval_s=self._meter_interval_s,
        )
        await self.peer.start()

    async def stop(self) -> None:
        """Power off."""
        if self.peer is not None:
            await self.peer.stop()

    async def plug_in(self, car: CarPlan) -> None:
        """A car arrives, and its driver shows a card."""
        self.visits.append(Visit(self.plan.id, self.plan.node, self._clock.now()))
        self.peer.plug_in(PluggedCar(car.wants_wh, car.max_w))

    async def unplug(self) -> None:
        """The car leaves."""
        self.visits[-1] = replace(self.visits[-1], left_at=self._clock.now())
        self.peer.unplug()

    def lie(self) -> None:
        """Accept every limit from now on, and keep none."""
        self.peer.ignore_limits = True

    def power_w(self, now: datetime) -> float:
        """What physically flows, W."""
        return 0.0 if self.peer is None else float(self.peer.power_w(now))

    def wish_w(self, now: datetime) -> float:
        """What the car would take if nothing limited it, W."""
        return 0.0 if self.peer is None else float(self.peer.wish_w(now))

    def words(self, at: datetime) -> str:
        """Its state for the audience."""
        if self.peer is None or not self.peer.connected:
            return "offline"
        return f"{self.plan.version} · may take {self.peer.limit_a(at):.1f} A"

    @property
    def reports(self) -> int:
        """Messages with a reading of its meter that it has sent so far."""
        frames = {} if self.peer is None else self.peer.frames
        return sum(frames.get(f"sent:{action}", 0) for action in ("MeterValues", "TransactionEvent"))

    @property
    def accepted(self) -> int:
        """Charging profiles that it accepted so far."""
        return 0 if self.peer is None else len(self.peer.accepted)

    def lowered_since(self, monotonic: float) -> list[float]:
        """When, in monotonic real seconds, it accepted a lower limit than it had before."""
        before: dict[int, float] = {}
        found = []
        for accepted in () if self.peer is None else self.peer.accepted:
            had = before.get(accepted.outlet)
            if accepted.monotonic >= monotonic and had is not None and accepted.limit_a < had:
                found.append(accepted.monotonic)
            before[accepted.outlet] = accepted.limit_a
        return found


def _wh(row: dict[str, Any]) -> float:
    return float(row["value"]) * (1000.0 if row["unit"] == "KWH" else 1.0)
