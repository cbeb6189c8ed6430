"""One station's connection from its first byte to its last: what to send, store and tell. No I/O.

Phases: BOOTING (no accepted boot is known) → READING (what it can hold) → ANNOUNCING (its line is
being made known, durably) → USABLE. Limits leave only in the last. A station that booted with us
before starts in READING (OCPP 1.6 §4.2: no second boot after a plain reconnect).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from adapters.ocpp.core import answers_16, answers_201, boot, fate, leftovers, rotation, setup
from adapters.ocpp.core.actions import ADAPTER, Action, Close, Job, Memory, Note, Options, Purpose, Tools
from adapters.ocpp.core.holding import RESEND, Follow, Holding
from adapters.ocpp.core.intake import Durability, Facts, Intake, clean, endpoint, meter_points
from adapters.ocpp.core.metering import POLL, Metering
from adapters.ocpp.core.proof import RECHECK_S
from adapters.ocpp.core.proof import TAG as PROOF
from adapters.ocpp.core.quirks import Effect, effect_of
from adapters.ocpp.core.skew import StationClock, live_instant
from adapters.ocpp.session import (
    Ended,
    Fate,
    Late,
    Output,
    Received,
    Refused,
    Request,
    Send,
    Session,
)
from adapters.ocpp.translate.profile import Capability, set_profile
from adapters.ocpp.wire import Version, v16, v201
from adapters.ocpp.wire.frames import ErrorCode
from gateway.domain.effects import Command, Layer
from gateway.domain.errors import LocalError
from gateway.domain.events import (
    ClockCompared,
    CommandAnswered,
    Event,
    MessageRefused,
    Outcome,
    StationConnected,
    StationDisconnected,
    StationNoted,
)
from gateway.domain.evidence import Actor
from gateway.domain.ids import PeerId
from gateway.domain.timeline import rfc3339
from gateway.ports.fleet import StationSettings
from gateway.ports.gate import AdapterRow, Inbound, Receipt, Verdict

BOOT_GRACE_S = 5.0
"""How long a station may stay silent before it is asked to boot."""

BOOT_WAIT_S = 30.0
"""How long a 1.6 station that promised to boot may take before it is used without."""

MAX_NOTES = 60
NOTES_WINDOW_S = 60.0
"""Remarks on one connection per window that reach evidence; beyond it they are dropped."""

_HANDLERS = {Version.V16: answers_16.HANDLERS, Version.V201: answers_201.HANDLERS}
_SUPPORTED = {version: frozenset({*handlers, "BootNotification"}) for version, handlers in _HANDLERS.items()}


class Phase(StrEnum):
    """How far a connection has come."""

    BOOTING = "booting"
    READING = "reading"
    ANNOUNCING = "announcing"
    USABLE = "usable"


class StationCore:
    """One connection. ``now`` is the story's instant, ``at`` are monotonic seconds."""

    def __init__(
        self,
        *,
        settings: StationSettings,
        version: Version,
        generation: int,
        actor: Actor,
        memory: Memory,
        tools: Tools,
        options: Options,
        proven_serial: bool,
    ) -> None:
        self.settings = settings
        self.version = version
        self.generation = generation
        self.phase = Phase.BOOTING
        self._actor = actor
        self._memory = memory
        self._tools = tools
        self._options = options
        self._proven_serial = proven_serial
        self._handlers = _HANDLERS[version]
        self._commands: dict[str, Command] = {}
        self._starting: set[str] = set()
        self._parked: dict[str, Command] = {}
        self._asked_to_boot = False
        self._announced = False
        self._boot_deadline: float | None = None
        self._recheck_at: float | None = None
        self._quirks: tuple[Mapping[str, str], Effect] | None = None
        """What is different about the station, and the words of its boot from which that follows."""
        self._holding = Holding(version, settings, generation, memory, self._capability, self._effect)
        self._points = meter_points(settings)
        self._numbers = {binding.evse: binding.number for binding in settings.evses}
        self._metering = Metering(version, options.meter_interval_s)
        self._station_clock = StationClock(memory.skew_s)
        self._notes_from = 0.0
        self._notes = 0
        self.session = Session(
            version,
            supported=_SUPPORTED[version],
            new_id=tools.new_id,
            diagnose=tools.diagnose,
        )

    @property
    def usable(self) -> bool:
        """Whether a command of this generation may be handed over."""
        return self.phase in (Phase.ANNOUNCING, Phase.USABLE)

    @property
    def next_deadline(self) -> float | None:
        """Monotonic second at which :meth:`tick` has something to do."""
        soonest = self.session.next_deadline
        metering = self._metering.deadline if self._memory.transactions else None
        # After every message: a plain loop takes half as long as min() over a generator.
        for deadline in (self._boot_deadline, self._recheck_at, metering):
            if deadline is not None and (soonest is None or deadline < soonest):
                soonest = deadline
        return soonest

    # --- what happens to it --------------------------------------------------------------

    def open(self, now: datetime, at: float) -> list[Action]:
        """The WebSocket is up."""
        if self._memory.booted:
            self.session.boot_accepted = True
            return self._read(now, at)
        self._boot_deadline = at + BOOT_GRACE_S
        return []

    def receive(self, text: str | bytes, now: datetime, at: float) -> list[Action]:
        """Take a message. A CALL comes back as ``Received``: hand it to :meth:`handle` in order."""
        outputs = self.session.receive(text, at)
        clock = [action for output in outputs if isinstance(output, Received) for action in self._hear(output, now, at)]
        return clock + self._carry_on(outputs, now, at)

    def handle(self, call: Received, now: datetime, at: float) -> list[Action]:
        """Answer a CALL, or say what must be durable first."""
        if call.action == "BootNotification":
            return self._boot(call, now, at)
        facts = self._facts(call, now)
        if isinstance(call.message, v201.ReportChargingProfilesRequest):
            reply = self.session.reply(call.raw_id, b"{}")
            return [reply, *self._follow(self._holding.reported(call.message, facts), now, at)]
        intake = self._handlers[call.action](call.message, facts)
        flowing = self._flowing(call, intake, now, at)
        if intake.durability is Durability.AT_ONCE or (
            intake.durability is Durability.TELEMETRY and not intake.samples
        ):
            events = self._limited(intake.events, at)
            noted: list[Action] = [Note(events)] if events else []
            return [self.session.reply(call.raw_id, intake.answer), *noted, *flowing]
        return [self._job(call, intake, now), *flowing]

    def begin(self, job: Job) -> None:
        """``job`` is about to be handed to the gate."""
        if job.purpose is Purpose.ANNOUNCE:
            self._announced = True
        if job.opened is not None:
            self._starting.add(job.opened[0])

    def stored(self, job: Job, receipt: Receipt) -> None:
        """The gate took ``job``: follow with our table, unless it was known before."""
        if receipt.verdict is not Verdict.STORED:
            return
        for key in job.closed:
            over = self._memory.transactions.pop(key, None)
            if over is not None:
                self._holding.session_over(over.number)
        if job.opened is not None:
            self._memory.transactions[job.opened[0]] = job.opened[1]

    def done(self, job: Job, receipt: Receipt | None, now: datetime, at: float) -> list[Action]:
        """All of ``job`` is durable: acknowledge. A repetition gets the answer of the first time."""
        match job.purpose:
            case Purpose.MESSAGE:
                earlier = receipt is not None and receipt.verdict is not Verdict.STORED
                answer = receipt.answer if earlier and receipt is not None and receipt.answer else job.answer
                return [self.session.reply(job.raw_id, answer), *self._unpark(job, now, at)]
            case Purpose.ANNOUNCE:
                return self._announcement_stored(at)
            case Purpose.BOOT:
                return self._boot_stored(job, now, at)
            case Purpose.KEEP:
                return []

    def failed(self, job: Job, now: datetime, at: float) -> list[Action]:
        """``job`` is not durable: the station keeps its message and tries again."""
        if job.purpose is Purpose.ANNOUNCE:
            return [Close(1013, "try again later")]
        if job.purpose is Purpose.KEEP:
            return []
        refusal = self.session.refuse(job.raw_id, ErrorCode.INTERNAL, "not stored, try again")
        return [refusal, *self._unpark(job, now, at)]

    def command(self, command: Command, now: datetime, at: float) -> list[Action]:
        """Queue a limit for one EVSE of this station."""
        binding = next((b for b in self.settings.evses if b.evse == command.evse), None)
        if binding is None or not self.usable or command.generation != self.generation:
            return [Note((fate.not_sent(command, "not connected"),))]
        if command.transaction in self._starting:
            return self._park(command)
        try:
            shown = now + timedelta(seconds=min(self._memory.skew_s or 0, 0))
            payload = set_profile(self.version, command, binding, self._capability(), shown)
        except LocalError as problem:
            return [Note((fate.not_sent(command, str(problem)),))]
        self._commands[command.id] = command
        self._holding.sent(command, payload)
        request = Request(
            tag=command.id,
            action="SetChargingProfile",
            payload=payload,
            priority=0 if command.tightens else 1,
            key=self._key(command),
            weighty=True,
        )
        return self._carry_on(self.session.enqueue(request, at), now, at)

    def _park(self, command: Command) -> list[Action]:
        """Its transaction's start is stored and not answered: the station does not know the id yet."""
        older = self._parked.pop(self._key(command), None)
        self._parked[self._key(command)] = command
        if older is None:
            return []
        return [Note((CommandAnswered(older.id, older.evse, older.generation, Outcome.SUPERSEDED),))]

    def _unpark(self, job: Job, now: datetime, at: float) -> list[Action]:
        if job.opened is None:
            return []
        self._starting.discard(job.opened[0])
        ready = [c for c in self._parked.values() if c.transaction == job.opened[0]]
        self._parked = {key: c for key, c in self._parked.items() if c not in ready}
        return [action for command in ready for action in self.command(command, now, at)]

    def tick(self, now: datetime, at: float) -> list[Action]:
        """Let time pass."""
        actions = self._carry_on(self.session.tick(at), now, at)
        if self._boot_deadline is not None and at >= self._boot_deadline:
            actions += self._boot_overdue(now, at)
        if self._recheck_at is not None and at >= self._recheck_at:
            self._recheck_at = at + RECHECK_S
            actions += self._follow(self._holding.recheck(), now, at)
        charging = [transaction.number for transaction in self._memory.transactions.values()]
        for request in self._metering.tick(charging, at, always=self._effect().poll_meter):
            actions += self._carry_on(self.session.enqueue(request, at), now, at)
        return actions

    def refused(self, code: str, reason: str, now: datetime, at: float) -> list[Action]:
        """The line below refused something that the station sent."""
        return self._carry_on([Refused(reason, code)], now, at)

    def gone(self, cause: str) -> tuple[Event, ...]:
        """The WebSocket is closed: the last events of this connection, each command's fate first."""
        answers: list[Event] = [*self._holding.lost()]
        answers += [
            fate.of_lost(self._commands.pop(ended.request.tag), ended)
            for ended in self.session.close()
            if isinstance(ended, Ended) and ended.request.tag in self._commands
        ]
        answers += [fate.not_sent(command, "never sent") for command in self._parked.values()]
        self._parked = {}
        if not self._announced:
            return tuple(answers)
        return (*answers, StationDisconnected(self.settings.id, self.generation, clean(cause)))

    # --- booting ---------------------------------------------------------------------------

    def _boot(self, call: Received, now: datetime, at: float) -> list[Action]:
        facts = self._facts(call, now)
        about, serials = boot.about(call.message)
        self._memory.about = about
        note = facts.noted("station.boot", "BootNotification", **about)
        if self._proven_serial and serials and self.settings.serial not in serials:
            # OCPP 2.0.1 B01.FR.12: the certificate's station and the booting one are two.
            wrong = facts.noted("station.serial-mismatch", "BootNotification", **about)
            return [Note((wrong,)), Close(1008, "serial number does not match the certificate")]
        body = Inbound(
            PeerId(str(self.settings.id)),
            endpoint("BootNotification"),
            f"{self.generation}|{call.raw_id.decode(errors='replace')}",
            call.payload,
            now,
            answer=(answer := boot.accepted(self.version, now, self._options.heartbeat_s)),
        )
        row = AdapterRow(ADAPTER, f"boot/{self.settings.id}", msgspec.json.encode({"at": rfc3339(now), **about}))
        return [Job(Purpose.BOOT, call.raw_id, answer, events=(note,), inbound=body, rows=(row,))]

    def _boot_stored(self, job: Job, now: datetime, at: float) -> list[Action]:
        self._memory.booted = True
        self._station_clock.was_set()
        self.session.boot_accepted = True
        reply: list[Action] = [self.session.reply(job.raw_id, job.answer)]
        if self.phase is Phase.BOOTING:
            return reply + self._read(now, at)
        # It may have another firmware since we last asked.
        return reply + self._carry_on(self.session.enqueue(setup.read_capability(self.version), at), now, at)

    def _boot_overdue(self, now: datetime, at: float) -> list[Action]:
        self._boot_deadline = None
        if not self._asked_to_boot:
            self._asked_to_boot = True
            return self._carry_on(self.session.enqueue(setup.trigger_boot(self.version), at), now, at)
        return self._read(now, at) if self.version is Version.V16 else []

    def _boot_asked(self, ended: Ended, now: datetime, at: float) -> list[Action]:
        if self.phase is not Phase.BOOTING or self.version is not Version.V16:
            return []
        willing = ended.fate is Fate.ANSWERED and setup.accepted(self.version, "TriggerMessage", ended.payload)[0]
        if willing:
            self._boot_deadline = at + BOOT_WAIT_S
            return []
        return self._read(now, at)

    # --- becoming usable ---------------------------------------------------------------------

    def _read(self, now: datetime, at: float) -> list[Action]:
        self._boot_deadline = None
        self.phase = Phase.READING
        if self._memory.capability is not None:
            return self._announce(())
        return self._carry_on(self.session.enqueue(setup.read_capability(self.version), at), now, at)

    def _capability_read(self, ended: Ended) -> list[Action]:
        rows: tuple[AdapterRow, ...] = ()
        if ended.fate is Fate.ANSWERED:
            found = setup.capability_of(self.version, ended.payload, self._assumed())
            if found != self._memory.capability:
                self._memory.capability = found
                rows = (AdapterRow(ADAPTER, f"capability/{self.settings.id}", msgspec.json.encode(found)),)
        if self.phase is Phase.READING:
            return self._announce(rows)
        return [Job(Purpose.KEEP, rows=rows)] if rows else []

    def _announce(self, rows: tuple[AdapterRow, ...]) -> list[Action]:
        """Make the line known. Until that is durable, commands wait in the queue."""
        self.phase = Phase.ANNOUNCING
        self.session.hold()
        connected = StationConnected(
            self.settings.id, self.generation, f"OCPP {self.version.label}", self._actor, self._memory.skew_s
        )
        number = AdapterRow(ADAPTER, f"generation/{self.settings.id}", str(self.generation).encode())
        return [Job(Purpose.ANNOUNCE, events=(connected,), rows=(number, *rows))]

    def _announcement_stored(self, at: float) -> list[Action]:
        self.phase = Phase.USABLE
        busy = {transaction.number for transaction in self._memory.transactions.values()}
        requests = setup.clear_leftovers(self.version, [b for b in self.settings.evses if b.number not in busy])
        requests += self._holding.look().requests
        requests += setup.report_meter(self.version, self._options.meter_interval_s)
        if self.settings.meter_node is not None:
            requests += setup.report_grid_meter(self.version, self._options.meter_interval_s)
        requests.append(rotation.ask(self.version, self.settings.evses))
        self._recheck_at = at + RECHECK_S
        self._metering.watch(at)
        taken = {self._key(command) for command in self._commands.values()}
        outputs = [
            output
            for request in requests
            if request.key not in taken or not request.key
            for output in self.session.enqueue(request, at)
        ]
        outputs += self.session.release(at)
        return [output for output in outputs if isinstance(output, Send)]

    # --- what comes back -------------------------------------------------------------------

    def _carry_on(self, outputs: list[Output], now: datetime, at: float) -> list[Action]:
        actions: list[Action] = []
        for output in outputs:
            match output:
                case Send() | Received():
                    actions.append(output)
                case Ended():
                    actions += self._ended(output, now, at)
                case Late(request=request, latency_s=latency):
                    facts = self._facts(None, now)
                    note = facts.noted("answer.late", request.action, tag=request.tag, after_s=round(latency))
                    actions += self._remark(note, at)
                case Refused(reason=reason, code=code, action=action):
                    message = self._facts(None, now).message(action or "unknown", "")
                    actions += self._remark(MessageRefused(message, code, reason), at)
        return actions

    def _ended(self, ended: Ended, now: datetime, at: float) -> list[Action]:
        tag = ended.request.tag
        command = self._commands.pop(tag, None)
        if command is not None:
            return self._follow(self._holding.answered(command, ended, self._facts(None, now)), now, at)
        if tag in (leftovers.SWEPT, RESEND) or tag.startswith(PROOF):
            return self._follow(self._holding.ended(ended, self._facts(None, now)), now, at)
        if ended.fate in (Fate.SUPERSEDED, Fate.DISCONNECTED):
            return []
        if tag == setup.CAPABILITY:
            return self._capability_read(ended)
        if tag == setup.CLEAR or tag.startswith(leftovers.READ):
            return []
        follow = {setup.TRIGGER: self._boot_asked, rotation.ROTATION: self._wired, POLL: self._polled}
        return follow.get(tag, self._configured)(ended, now, at)

    def _wired(self, ended: Ended, now: datetime, at: float) -> list[Action]:
        """Terminals that the station says are wired otherwise than configured are remarked, once."""
        found = rotation.contradictions(rotation.read(self.version, ended.payload), self.settings.evses)
        before, self._memory.wired = self._memory.wired, {binding.number: word for binding, word in found}
        actions: list[Action] = []
        for binding, word in found:
            if before.get(binding.number) != word:
                configured = rotation.words(binding.phases)
                note = self._facts(None, now).noted(
                    "station.phase-rotation", ended.request.action, evse=binding.evse, configured=configured, says=word
                )
                actions += self._remark(note, at)
        return actions

    def _polled(self, ended: Ended, now: datetime, at: float) -> list[Action]:
        """A refusal to be polled is remarked, once: then nothing measures that EVSE."""
        good, word = False, ended.detail or ended.fate.value
        if ended.fate is Fate.ANSWERED:
            good, word = setup.accepted(self.version, "TriggerMessage", ended.payload)
        if good or ended.fate in (Fate.SUPERSEDED, Fate.DISCONNECTED):
            return []
        self._metering.refused()
        return self._remark(self._facts(None, now).noted("meter.silent", "TriggerMessage", answer=word), at)

    def _follow(self, follow: Follow, now: datetime, at: float) -> list[Action]:
        actions: list[Action] = [Note(follow.events)] if follow.events else []
        for remark in follow.remarks:
            actions += self._remark(remark, at)
        for request in follow.requests:
            actions += self._carry_on(self.session.enqueue(request, at), now, at)
        return actions

    def _configured(self, ended: Ended, now: datetime, at: float) -> list[Action]:
        """The meter's configuration: a refusal is a remark, and a shorter list is tried."""
        good, word = False, ended.detail or ended.fate.value
        if ended.fate is Fate.ANSWERED:
            good, word = setup.accepted(self.version, ended.request.action, ended.payload)
        if good:
            return []
        following = setup.next_attempt(ended.request.tag) if ended.fate is Fate.ANSWERED else None
        note = self._facts(None, now).noted("meter.configuration", ended.request.action, answer=word)
        actions = self._remark(note, at)
        if following is not None:
            for request in setup.report_meter(self.version, self._options.meter_interval_s, following):
                actions += self._carry_on(self.session.enqueue(request, at), now, at)
        return actions

    # --- parts -----------------------------------------------------------------------------

    def _job(self, call: Received, intake: Intake, now: datetime) -> Job:
        if intake.durability is not Durability.FULL:
            return Job(Purpose.MESSAGE, call.raw_id, intake.answer, submit=False, samples=intake.samples)
        inbound = Inbound(
            PeerId(str(self.settings.id)),
            endpoint(call.action),
            intake.dedup,
            call.payload,
            now,
            answer=intake.answer,
        )
        prefix = f"tx/{self.settings.id}/"
        rows = [AdapterRow(ADAPTER, prefix + key, None) for key in intake.closed]
        if intake.opened is not None:
            rows.append(AdapterRow(ADAPTER, prefix + intake.opened[0], msgspec.json.encode(intake.opened[1])))
        return Job(
            Purpose.MESSAGE,
            call.raw_id,
            intake.answer,
            True,
            intake.events,
            intake.samples,
            inbound,
            tuple(rows),
            intake.opened,
            intake.closed,
        )

    def _facts(self, call: Received | None, now: datetime) -> Facts:
        return Facts(
            self.settings,
            self._actor,
            now,
            b"" if call is None else call.raw_id,
            b"" if call is None else call.payload,
            self._memory.transactions,
            self._tools.user_key,
            self._tools.draw_transaction,
            self._points,
        )

    def _flowing(self, call: Received, intake: Intake, now: datetime, at: float) -> list[Action]:
        """What a message says about meters and pauses besides its own meaning."""
        # Those of one message are of one place.
        number = self._numbers.get(intake.samples[0].node) if intake.samples else None
        if number is not None:
            self._metering.heard(number, at)
        flow = self._flow(call.message)
        if flow is None:
            return []
        number, state = flow
        return self._follow(self._holding.paused(number, paused=state == "SuspendedEVSE"), now, at)

    def _flow(self, message: msgspec.Struct) -> tuple[int, str] | None:
        """The connector or EVSE whose charging state a message tells, and that state."""
        match message:
            case v16.StatusNotificationRequest(connector_id=number, status=status):
                return number, status
            case v201.TransactionEventRequest(transaction_info=info, evse=evse) if _is_live(message):
                known = self._memory.transactions.get(info.transaction_id)
                number = evse.id if evse is not None else known.number if known is not None else 0
                return (number, info.charging_state) if info.charging_state else None
            case _:
                return None

    def _hear(self, call: Received, now: datetime, at: float) -> list[Action]:
        """What a message's time says about the station's clock, on its arrival: it may wait for others."""
        instant = live_instant(call.message)
        ahead_s = None if instant is None else self._station_clock.heard((instant - now).total_seconds(), at)
        if ahead_s is None:
            return []
        self._memory.skew_s = ahead_s
        if not self._announced:
            # The announcement will say it.
            return []
        message = self._facts(call, now).message(call.action, clean(call.raw_id.decode()))
        return [Note((ClockCompared(self.settings.id, self.generation, ahead_s, message),))]

    def _remark(self, event: Event, at: float) -> list[Action]:
        return [Note(events)] if (events := self._limited((event,), at)) else []

    def _limited(self, events: tuple[Event, ...], at: float) -> tuple[Event, ...]:
        if at - self._notes_from >= NOTES_WINDOW_S:
            self._notes_from, self._notes = at, 0
        allowed = []
        for event in events:
            remark = isinstance(event, StationNoted | MessageRefused)
            if not remark or self._notes < MAX_NOTES:
                self._notes += remark
                allowed.append(event)
        return tuple(allowed)

    def _assumed(self) -> Capability:
        unit = self._effect().unit or self.settings.rate_unit
        return Capability(periods=self._options.assumed_periods, unit=unit)

    def _capability(self) -> Capability:
        known = self._memory.capability or self._assumed()
        kind = self._effect().kind
        return known if kind is None else replace(known, kind=kind)

    def _effect(self) -> Effect:
        about = self._memory.about
        if self._quirks is None or self._quirks[0] is not about:
            self._quirks = (about, effect_of(self._tools.quirks, about))
        return self._quirks[1]

    def _key(self, command: Command) -> str:
        return f"{command.evse}|{'session' if command.layer is Layer.SESSION else 'share'}"


def _is_live(message: v201.TransactionEventRequest) -> bool:
    """Whether it tells of a transaction that goes on, and of now."""
    return message.event_type != "Ended" and not message.offline
