"""Stations of the simulated world, and what physically flows at them. Nothing here knows the controller.

A station is the adapter's simulated peer with faults of its own. What it *draws* goes into its meter;
what it *ought to* draw, had it kept every limit it accepted and were its clock right, is judged: what a
liar draws beyond that is no promise of the gateway's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from adapters.ocpp.peer.outlet import Car, Outlet
from adapters.ocpp.peer.profiles import TRANSACTION, Profile, ProfileStore, read_profile
from adapters.ocpp.peer.rpc import Rpc
from adapters.ocpp.peer.station import SimulatedStation, _Message
from adapters.ocpp.wire import Version, v16, v201
from gateway.domain.errors import PeerTimeout, PeerUnreachable, ProtocolViolation
from gateway.ports.clock import Clock
from tests.property.fleet_model import NEVER
from tests.simulation.line import StationEnd

VOLTS = 230.0
MAX_A = 32.0
LEAST_A = 0.1
"""A car that takes less than the standard's 6 A is the worse one."""

RETRY_S = (0.2, 5.0)
FAR = timedelta(days=1)


class MemoryRpc(Rpc):
    """The station's end without a socket. ``dial`` gives a line, None where nobody answers."""

    dial: Callable[[], Awaitable[StationEnd | None]]
    written_at = NEVER
    """When the frame that is being taken was written."""

    async def _run(self) -> None:
        delay = RETRY_S[0]
        while True:
            if self.away:
                self._wake.clear()
                await self._wake.wait()
            end = await self.dial()
            if end is not None:
                delay = RETRY_S[0]
                await self._serve(end)  # type: ignore[arg-type]  # as much of a connection as it uses
            if not self.away:
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_S[1])

    async def _take(self, socket: Any, text: str | bytes) -> None:
        self.written_at = socket.written_at(text)
        await super()._take(socket, text)


class Forgetful(ProfileStore):
    """Profiles that can get lost. ``ought`` has them until something replaces them."""

    def __init__(self, *, strict: bool) -> None:
        super().__init__(strict=strict)
        self.ought = ProfileStore(strict=False)

    def install(self, profile: Profile, running: str | None) -> str:
        reason = super().install(profile, running)
        if not reason:
            self.ought.install(profile, running)
        return reason

    def clear(self, profile_id: int | None) -> bool:
        self.ought.clear(profile_id)
        return super().clear(profile_id)

    def clear_matching(self, purpose: str | None, level: int | None, outlet: int | None) -> bool:
        self.ought.clear_matching(purpose, level, outlet)
        return super().clear_matching(purpose, level, outlet)

    def transaction_ended(self, outlet: int) -> None:
        self.ought.transaction_ended(outlet)
        super().transaction_ended(outlet)

    def lose(self) -> None:
        """Forget all of it, and say nothing."""
        super().clear(None)


class Meter:
    """What the meter says of a true power. Faults: ``frozen``, ``jump`` and ``drift``."""

    def __init__(self) -> None:
        self.fault = ""
        self.factor = 1.0
        self._last_w = 0.0

    def reads(self, power_w: float) -> float:
        if self.fault == "frozen":
            return self._last_w
        if self.fault == "drift":
            self.factor *= 1.01
        self._last_w = power_w * self.factor
        return self._last_w


class MeteredOutlet(Outlet):
    """An outlet whose meter may be wrong; what flows is in ``flows_w``."""

    meter: Meter

    def flows_w(self, now: datetime) -> float:
        return super().power_w(now)

    def power_w(self, now: datetime) -> float:
        return self.meter.reads(super().power_w(now))


class Station(SimulatedStation):
    """One station with one outlet; for the judge also what ``fleet_model.Station`` is."""

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        seconds: Callable[[], float],
        version: str,
        phases: tuple[str, ...],
        skew_s: float,
        lag_s: float,
        dial: Callable[[], Awaitable[StationEnd | None]],
    ) -> None:
        super().__init__(name, serial=f"SN-{name}", url="ws://memory", clock=clock, version=version)
        self.name = name
        self.phases = phases
        self.skew_s = skew_s
        self.lag_s = lag_s
        self.faults: set[str] = set()
        self.acknowledged: dict[str, list[str]] = {"started": [], "ended": []}
        """Transactions whose beginning and end the gateway has acknowledged."""
        self.told_share = self.told_session = NEVER
        self.meter = Meter()
        self._seconds = seconds
        self._true = clock
        self._installed_at = NEVER
        self._recent: deque[tuple[float, float]] = deque([(NEVER, 0.0)])
        self.profiles = self.store = Forgetful(strict=self.version is not Version.V16)
        outlet = MeteredOutlet(1, self.store, len(phases), VOLTS, LEAST_A, MAX_A)
        outlet.meter = self.meter
        self.outlet = self.outlets[1] = outlet
        rpc = MemoryRpc(
            "ws://memory",
            name,
            self.version,
            context=None,
            password=None,
            on_call=self._on_call,
            on_connected=self._on_connected,
        )
        rpc.dial = dial
        self._rpc = self._line = rpc
        self.clock_off_s = skew_s

    # --- what happens to it ---------------------------------------------------------------------

    def plug(self, car: Car) -> None:
        """A car arrives, whoever hears of it. A station that never was told anything is not in use."""
        if self.outlet.car is None and self.told_share > NEVER and "off" not in self.faults:
            self.plug_in(car)

    def leave(self) -> None:
        """The car leaves."""
        if self.outlet.car is not None:
            self.unplug()
            self._recent.clear()
            self._recent.append((NEVER, 0.0))

    def switch_phases(self, phases: int) -> None:
        """The car goes on with another number of phases."""
        car = self.outlet.car
        if car is not None:
            self._settle()
            self.outlet.car = Car(car.energy_wh, VOLTS * MAX_A * phases, phases)

    async def reboot(self, off_s: float) -> None:
        """Power fails: the session is over, what is permanent stays; then it boots anew."""
        self.faults.add("off")
        self.leave()
        self._booted = False
        self._ready.clear()
        await self.offline()
        await asyncio.sleep(off_s)
        self.faults.discard("off")
        self.online()

    def _install(self, message: v16.SetChargingProfileRequest | v201.SetChargingProfileRequest) -> bytes:
        answer = super()._install(message)
        if msgspec.json.decode(answer).get("status") == "Accepted":
            self._installed_at = self._seconds()
            profile = read_profile(message, self._true.now())
            if profile is not None and profile.purpose == TRANSACTION:
                self.told_session = self._line.written_at
            else:
                self.acknowledged: dict[str, list[str]] = {"started": [], "ended": []}
        """Transactions whose beginning and end the gateway has acknowledged."""
        self.told_share = self._line.written_at
        return answer

    async def _deliver_one(self, message: _Message) -> bool:
        payload = message.make()
        try:
            answer = await self._rpc.call(message.action, payload, message.then)
        except (PeerUnreachable, PeerTimeout):
            return False
        except ProtocolViolation as problem:
            return problem.code != "InternalError"
        self._was_acknowledged(message.action, payload, answer)
        return True

    def _was_acknowledged(self, action: str, payload: bytes, answer: bytes) -> None:
        sent = msgspec.json.decode(payload)
        if action == "StartTransaction":
            self.acknowledged["started"].append(str(msgspec.json.decode(answer)["transactionId"]))
        elif action == "StopTransaction":
            self.acknowledged["ended"].append(str(sent["transactionId"]))
        elif action == "TransactionEvent" and sent["eventType"] != "Updated":
            self.acknowledged[sent["eventType"].lower()].append(sent["transactionInfo"]["transactionId"])

    # --- for the judge --------------------------------------------------------------------------

    @property
    def plugged(self) -> bool:
        return self.outlet.car is not None

    @property
    def told(self) -> float:
        """When what it goes by was sent."""
        return self.told_session if self.has_session_profile else self.told_share

    @property
    def used(self) -> tuple[str, ...]:
        """The phases that the car draws on."""
        car = self.outlet.car
        return self.phases if car is None else self.phases[: car.phases]

    def settled(self, now: float) -> bool:
        """Whether the car has followed what was installed last."""
        return now >= self._installed_at + self.lag_s

    def ought_a(self, instant: datetime) -> float:
        """What a true station with a right clock would let flow on each phase used."""
        car = self.outlet.car
        if car is None:
            return 0.0
        board = instant + timedelta(seconds=self.skew_s)
        held = self.store.ought.limit_a(
            1, board, charging=self.outlet.running, voltage_v=VOLTS, phases=min(car.phases, len(self.phases))
        )
        return MAX_A if held is None else min(held, MAX_A)

    def look(self, now: float) -> None:
        """Remember what flows, as long as a car may take to follow; also what changed by itself since the last look."""
        instant, before = self._true.now(), self._recent[-1][0]
        for edge in sorted(edge - timedelta(seconds=self.skew_s) for edge in self.store.ought.edges()):
            at = now - (instant - edge).total_seconds()
            if before < at < now:
                self._recent.append((at, self.ought_a(edge)))
        self._recent.append((now, self.ought_a(instant)))
        while len(self._recent) > 1 and self._recent[1][0] <= now - self.lag_s:
            self._recent.popleft()

    def current_a(self, _now: float) -> float:
        """What flows at most while the car follows."""
        return max(amperes for _, amperes in self._recent) if self.plugged else 0.0

    def kept_a(self, since: float, now: float) -> float:
        """What flows for good when nothing that was sent after ``since`` has arrived, else 0."""
        if not self.plugged:
            return 0.0
        kept = self.ought_a(self._true.now() + FAR) if self.told < since else 0.0
        return kept if self.settled(now) else max(kept, self.current_a(now))

    @property
    def has_session_profile(self) -> bool:
        """Whether a session's schedule is installed."""
        return any(profile.purpose == TRANSACTION for profile in self.store.ought.held)
