"""A simulated charging station. It obeys what is installed, also when nobody talks to it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from adapters.ocpp.peer import reports, words
from adapters.ocpp.peer.clock import BoardClock
from adapters.ocpp.peer.outlet import Car, Outlet
from adapters.ocpp.peer.profiles import PURPOSES, ProfileStore, read_profile
from adapters.ocpp.peer.rpc import Rpc
from adapters.ocpp.wire import Version, encode, response_decoder, v16, v201
from gateway.domain.errors import PeerTimeout, PeerUnreachable, ProtocolViolation
from gateway.kit.tls import client_context
from gateway.ports.adapter import ClientIdentity
from gateway.ports.clock import Clock

MAX_QUEUE = 1_000
"""Transaction messages kept while offline; beyond it the oldest meter value goes."""

RETRY_S = 0.5
"""Real seconds before a transaction message that was not taken is sent again."""


DEFAULT_CARD = "CARD-1"
"""What the driver shows; no secret."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A profile that was installed: story time, monotonic real seconds, what it allows now (A)."""

    at: datetime
    monotonic: float
    outlet: int
    purpose: str
    limit_a: float


@dataclass
class _Message:
    action: str
    make: Callable[[], bytes]
    then: Callable[[bytes], None] | None = None
    meter: bool = False


@dataclass
class _Transaction16:
    """A 1.6 transaction; the other side chooses its id when it hears of the start."""

    id: int | None = None


class SimulatedStation:
    """One station with one or more outlets.

    Args:
        url: ``ws://host:port`` or ``wss://host:port`` of the listener.
        version: ``1.6`` or ``2.0.1``.
        identity: client certificate and whom to trust, for ``wss``.
        password: HTTP Basic, profiles 1 and 2.
        meter_interval_s: story seconds between meter values, until the other side sets another.

    ``ignore_limits``, ``mute`` (answers no CALL) and ``rejects`` (refuses profiles) misbehave, and so
    does a clock that is ``clock_off_s`` ahead (negative: behind). Instants handed in are true ones.
    """

    def __init__(  # noqa: PLR0913 - a station is described by this many facts, all but one by keyword
        self,
        id: str,
        *,
        serial: str,
        url: str,
        clock: Clock,
        version: str = "1.6",
        identity: ClientIdentity | None = None,
        password: str | None = None,
        outlets: int = 1,
        phases: int = 3,
        voltage_v: float = 230.0,
        min_a: float = 6.0,
        max_a: float = 32.0,
        meter_interval_s: float = 10.0,
    ) -> None:
        self.id = id
        self.version = Version(f"ocpp{version}")
        self.accepted: list[Accepted] = []
        self.mute = False
        self.rejects = False
        self.meter_interval_s = meter_interval_s
        self.profiles = ProfileStore(strict=self.version is not Version.V16)
        self.outlets = {
            number: Outlet(number, self.profiles, phases, voltage_v, min_a, max_a) for number in range(1, outlets + 1)
        }
        self._serial = serial
        self._clock = BoardClock(clock)
        self._booted = False
        self._open: dict[int, _Transaction16] = {}
        self._sequence: Counter[str] = Counter()
        self._said: dict[int, str] = {}
        self._queue: deque[_Message] = deque()
        self._news = asyncio.Event()
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._greeting: asyncio.Task[None] | None = None
        self._rpc = Rpc(
            url,
            id,
            self.version,
            context=None if identity is None else client_context(identity),
            password=password,
            on_call=self._on_call,
            on_connected=self._on_connected,
        )

    # --- life ------------------------------------------------------------------------------

    @property
    def frames(self) -> Counter[str]:
        """Messages counted by ``sent:``, ``answered:`` and ``received:`` action."""
        return self._rpc.frames

    @property
    def connected(self) -> bool:
        """Whether the line is up and the boot accepted."""
        return self._rpc.connected and self._ready.is_set()

    @property
    def ignore_limits(self) -> bool:
        """Whether it draws what the cars want, whatever is installed."""
        return any(outlet.ignore_limits for outlet in self.outlets.values())

    @ignore_limits.setter
    def ignore_limits(self, value: bool) -> None:
        now = self._clock.now()
        for outlet in self.outlets.values():
            outlet.settle(now)
            outlet.ignore_limits = value

    @property
    def clock_off_s(self) -> float:
        """Seconds that its clock is ahead; negative: behind."""
        return self._clock.off.total_seconds()

    @clock_off_s.setter
    def clock_off_s(self, value: float) -> None:
        self._settle()
        self._clock.off = timedelta(seconds=value)
        for outlet in self.outlets.values():
            outlet.clock_set(self._clock.now())

    async def start(self, *, wait_s: float | None = 10.0) -> None:
        """Connect, boot and report the status.

        Raises:
            TimeoutError: not accepted within ``wait_s`` real seconds (None: do not wait).
        """
        loop = asyncio.get_running_loop()
        self._rpc.start()
        self._tasks = [loop.create_task(self._deliver()), loop.create_task(self._report())]
        if wait_s is not None:
            async with asyncio.timeout(wait_s):
                await self._ready.wait()

    async def stop(self) -> None:
        """Power off; installed profiles stay."""
        for task in (*self._tasks, *((self._greeting,) if self._greeting else ())):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        await self._rpc.stop()

    async def offline(self) -> None:
        """Lose the line and stay away; charging goes on by the profiles held."""
        await self._rpc.hang_up()

    def online(self) -> None:
        """Come back."""
        self._rpc.come_back()

    # --- cars ------------------------------------------------------------------------------

    def plug_in(self, car: Car, outlet: int = 1, *, token: str = DEFAULT_CARD) -> None:
        """A car arrives and its driver shows a token: a transaction starts."""
        now = self._clock.now()
        place = self.outlets[outlet]
        place.plug_in(car, now)
        place.running = True
        if self.version is Version.V16:
            transaction = self._open[outlet] = _Transaction16()
            start = words.start_16(place, token, now)
            self._send("StartTransaction", start, lambda answer: self._started(place, transaction, answer))
        else:
            place.transaction = str(uuid.uuid4())
            self._event(place, "Started", "CablePluggedIn", token=token)
        self._look(place)

    def unplug(self, outlet: int = 1) -> None:
        """The car leaves: the transaction and its profiles end."""
        now = self._clock.now()
        place = self.outlets[outlet]
        place.settle(now)
        if place.running:
            self._stopped(place, now)
        place.unplug(now)
        place.running, place.transaction = False, None
        self.profiles.transaction_ended(outlet)
        self._look(place)

    def power_w(self, now: datetime | None = None, outlet: int | None = None) -> float:
        """What physically flows at ``now``, W."""
        at = self._board(now)
        return sum(o.power_w(at) for o in self._chosen(outlet))

    def wish_w(self, now: datetime | None = None, outlet: int | None = None) -> float:
        """What the cars would take if nothing limited them, W."""
        at = self._board(now)
        for place in self._chosen(outlet):
            place.settle(at)
        return sum(o.wish_w(at) for o in self._chosen(outlet))

    def limit_a(self, now: datetime | None = None, outlet: int = 1) -> float:
        """Current per phase that the installed profiles allow."""
        return self.outlets[outlet].limit_a(self._board(now))

    def energy_wh(self, outlet: int = 1) -> float:
        """Register of an outlet's meter."""
        self.outlets[outlet].settle(self._clock.now())
        return self.outlets[outlet].register_wh

    def _board(self, now: datetime | None) -> datetime:
        return self._clock.now() if now is None else self._clock.shown_at(now)

    def _chosen(self, outlet: int | None) -> Sequence[Outlet]:
        return list(self.outlets.values()) if outlet is None else [self.outlets[outlet]]

    # --- what it says ----------------------------------------------------------------------

    def _on_connected(self) -> None:
        self._greeting = asyncio.get_running_loop().create_task(self._greet())

    async def _greet(self) -> None:
        """Boot once in a life; after a plain reconnect only the status is told."""
        with suppress(PeerUnreachable, PeerTimeout, ProtocolViolation):
            while not self._booted:
                self._booted = await self._boot()
            for outlet in self.outlets.values():
                await self._status(outlet)
            self._ready.set()
            self._news.set()

    async def _boot(self) -> bool:
        make = words.boot_16 if self.version is Version.V16 else words.boot_201
        answer = await self._rpc.call("BootNotification", make(self._serial))
        message = response_decoder(self.version, "BootNotification").decode(answer)
        if getattr(message, "status", "") == "Accepted":
            return True
        await asyncio.sleep(RETRY_S)
        return False

    async def _status(self, outlet: Outlet) -> None:
        now = self._clock.now()
        make = words.status_16 if self.version is Version.V16 else words.status_201
        self._said[outlet.number] = self._state(outlet)
        await self._rpc.call("StatusNotification", make(outlet, now))

    def _state(self, outlet: Outlet) -> str:
        if outlet.running:
            return outlet.state(self._clock.now())
        return "Occupied" if outlet.car else "Available"

    def _look(self, outlet: Outlet) -> None:
        """Tell a changed state."""
        now = self._clock.now()
        state = self._state(outlet)
        before = self._said.get(outlet.number)
        if before == state:
            return
        self._said[outlet.number] = state
        if self.version is Version.V16:
            self._send("StatusNotification", words.status_16(outlet, now))
        elif not outlet.running or before in (None, "Available"):
            self._send("StatusNotification", words.status_201(outlet, now))
        else:
            self._event(outlet, "Updated", "ChargingStateChanged")

    def _event(self, outlet: Outlet, kind: str, trigger: str, *, token: str = "", meter: bool = False) -> None:
        transaction = outlet.transaction or ""
        seq_no = self._sequence[transaction]
        self._sequence[transaction] += 1
        payload = words.event_201(
            outlet,
            transaction,
            kind,
            trigger,
            seq_no,
            self._clock.now(),
            token=token,
            offline=not self._rpc.connected,
        )
        self._send("TransactionEvent", payload, meter=meter)

    def _started(self, outlet: Outlet, transaction: _Transaction16, answer: bytes) -> None:
        transaction.id = msgspec.json.decode(answer, type=v16.StartTransactionResponse).transaction_id
        if self._open.get(outlet.number) is transaction:
            outlet.transaction = str(transaction.id)

    def _stopped(self, outlet: Outlet, now: datetime) -> None:
        if self.version is not Version.V16:
            self._event(outlet, "Ended", "EVCommunicationLost")
            return
        transaction = self._open.pop(outlet.number)
        meter_wh = round(outlet.register_wh)
        # By the time it is sent, the start before it in the queue has been answered.
        self._push(_Message("StopTransaction", lambda: words.stop_16(transaction.id or 0, meter_wh, now)))

    async def _report(self) -> None:
        """Meter values, every so many story seconds."""
        due = self._clock.now()
        while True:
            now, interval = self._clock.now(), timedelta(seconds=self.meter_interval_s)
            # The clock may have been set back meanwhile.
            due = min(max(due + interval, now), now + interval)
            await self._clock.sleep_until(due)
            for outlet in self.outlets.values():
                outlet.settle(self._clock.now())
                if outlet.running:
                    self._meter(outlet)
                    self._look(outlet)

    def _meter(self, outlet: Outlet) -> None:
        if self.version is Version.V16:
            number = None if outlet.transaction is None else int(outlet.transaction)
            self._send("MeterValues", words.meter_16(outlet, number, self._clock.now()), meter=True)
        else:
            self._event(outlet, "Updated", "MeterValuePeriodic", meter=True)

    def _send(
        self, action: str, payload: bytes, then: Callable[[bytes], None] | None = None, *, meter: bool = False
    ) -> None:
        self._push(_Message(action, lambda: payload, then, meter))

    def _push(self, message: _Message) -> None:
        self._queue.append(message)
        if len(self._queue) > MAX_QUEUE:
            spare = next((m for m in self._queue if m.meter), self._queue[0])
            self._queue.remove(spare)
        self._news.set()

    async def _deliver(self) -> None:
        """The queue in order; a message leaves it when it was answered, also by a refusal."""
        while True:
            self._news.clear()
            while self._queue and self.connected:
                message = self._queue[0]
                if not await self._deliver_one(message):
                    await asyncio.sleep(RETRY_S)
                    continue
                with suppress(ValueError):
                    self._queue.remove(message)
            await self._news.wait()

    async def _deliver_one(self, message: _Message) -> bool:
        try:
            await self._rpc.call(message.action, message.make(), message.then)
        except (PeerUnreachable, PeerTimeout):
            return False
        except ProtocolViolation as problem:
            # Not stored over there: it must not be forgotten here.
            return problem.code != "InternalError"
        return True

    # --- what it is told -------------------------------------------------------------------

    def _on_call(self, action: str, message: msgspec.Struct) -> bytes | None:
        return None if self.mute else self._on_profile_call(message) or self._on_setting_call(message)

    def _on_profile_call(self, message: msgspec.Struct) -> bytes | None:
        match message:
            case v16.SetChargingProfileRequest() | v201.SetChargingProfileRequest():
                return self._install(message)
            case v16.ClearChargingProfileRequest() | v201.ClearChargingProfileRequest():
                self._settle()
                return b'{"status":"%s"}' % (b"Accepted" if self._clear(message) else b"Unknown")
            case (
                v16.GetCompositeScheduleRequest(connector_id=number) | v201.GetCompositeScheduleRequest(evse_id=number)
            ) if number in self.outlets:
                outlet, unit = self.outlets[number], message.charging_rate_unit
                return reports.composite(self.version, outlet, self._clock.now(), message.duration, unit)
            case v201.GetChargingProfilesRequest():
                return self._report_profiles(message)
            case _:
                return None

    def _on_setting_call(self, message: msgspec.Struct) -> bytes:
        match message:
            case v16.GetConfigurationRequest(key=keys):
                return self._configuration(keys or tuple(words.CONFIGURATION_16))
            case v16.ChangeConfigurationRequest(key=key, value=value):
                return b'{"status":"%s"}' % self._change(key, value).encode()
            case v201.GetVariablesRequest():
                return self._variables(message)
            case v201.SetVariablesRequest():
                return self._set_variables(message)
            case _:
                return b'{"status":"Rejected"}'

    def _install(self, message: v16.SetChargingProfileRequest | v201.SetChargingProfileRequest) -> bytes:
        now = self._clock.now()
        profile = None if self.rejects else read_profile(message, now)
        if profile is None or (profile.outlet and profile.outlet not in self.outlets):
            return b'{"status":"Rejected"}'
        self._settle()
        running = None if profile.outlet == 0 else self._running(profile.outlet)
        reason = self.profiles.install(profile, running)
        if reason:
            info = b"" if self.version is Version.V16 else b',"statusInfo":{"reasonCode":"%s"}' % reason.encode()
            return b'{"status":"Rejected"%s}' % info
        for number in [profile.outlet] if profile.outlet else list(self.outlets):
            limit = self.outlets[number].limit_a(now)
            self.accepted.append(Accepted(now, self._clock.monotonic(), number, profile.purpose, limit))
            self._look(self.outlets[number])
        return b'{"status":"Accepted"}'

    def _clear(self, message: v16.ClearChargingProfileRequest | v201.ClearChargingProfileRequest) -> bool:
        criteria: tuple[str | None, int | None, int | None]
        if isinstance(message, v16.ClearChargingProfileRequest):
            number, criteria = message.id, (message.charging_profile_purpose, message.stack_level, message.connector_id)
        else:
            wanted = message.charging_profile_criteria or v201.ClearChargingProfileType()
            number = message.charging_profile_id
            criteria = (wanted.charging_profile_purpose, wanted.stack_level, wanted.evse_id)
        if number is not None:
            return self.profiles.clear(number)
        purpose, level, outlet = criteria
        return self.profiles.clear_matching(PURPOSES.get(purpose or "", purpose), level, outlet)

    def _report_profiles(self, message: v201.GetChargingProfilesRequest) -> bytes:
        found = reports.matching(self.profiles.held, message)
        for index, profile in enumerate(found, 1):
            payload = reports.report(message.request_id, profile, more=index < len(found))
            self._send("ReportChargingProfiles", payload)
        return b'{"status":"%s"}' % (b"Accepted" if found else b"NoProfiles")

    def _running(self, number: int) -> str | None:
        outlet = self.outlets[number]
        return outlet.transaction if outlet.running else None

    def _settle(self) -> None:
        for outlet in self.outlets.values():
            outlet.settle(self._clock.now())

    def _configuration(self, keys: Sequence[str]) -> bytes:
        known = words.CONFIGURATION_16
        return encode(
            v16.GetConfigurationResponse(
                configuration_key=tuple(
                    v16.ConfigurationKey(key=k, readonly=True, value=known[k]) for k in keys if k in known
                ),
                unknown_key=tuple(k for k in keys if k not in known),
            )
        )

    def _change(self, key: str, value: str) -> str:
        if key == "MeterValueSampleInterval":
            self.meter_interval_s = float(value)
            return "Accepted"
        known = ("MeterValuesSampledData", "MeterValuesAlignedData", "ClockAlignedDataInterval")
        return "Accepted" if key in known else "NotSupported"

    def _variables(self, message: v201.GetVariablesRequest) -> bytes:
        known = words.VARIABLES_201
        return encode(
            v201.GetVariablesResponse(
                get_variable_result=tuple(
                    v201.GetVariableResultType(
                        attribute_status="Accepted" if d.variable.name in known else "UnknownVariable",
                        attribute_value=known.get(d.variable.name),
                        component=d.component,
                        variable=d.variable,
                    )
                    for d in message.get_variable_data
                )
            )
        )

    def _set_variables(self, message: v201.SetVariablesRequest) -> bytes:
        for data in message.set_variable_data:
            if data.variable.name == "TxUpdatedInterval":
                self.meter_interval_s = float(data.attribute_value)
        return encode(
            v201.SetVariablesResponse(
                set_variable_result=tuple(
                    v201.SetVariableResultType(attribute_status="Accepted", component=d.component, variable=d.variable)
                    for d in message.set_variable_data
                )
            )
        )
