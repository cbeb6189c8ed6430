"""One site's runner: queues events, steps the controller, commits, dispatches. The I/O around it.

Everything that happened passes through one queue in order. A batch of it is one step; its changes
commit as one unit; then callers are told, commands and facts leave. ``current`` is the state that
steps read, ``durable`` the last one committed: when a commit fails the runner falls back to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias

import msgspec

from gateway.domain import events as ev
from gateway.domain.effects import Changes, Command, Layer, OutboxItem
from gateway.domain.errors import GatewayError, LocalError, StoreError
from gateway.domain.evidence import EvidenceDraft, sha256_hex
from gateway.domain.ids import EvidenceId, NodeId, SiteId
from gateway.domain.measurement import Measurement, Quantity
from gateway.domain.quantities import Watts
from gateway.infra.outbox import Courier
from gateway.ports.clock import Clock
from gateway.ports.fleet import LimitActuator
from gateway.ports.gate import AdapterRow, EvseView, Inbound, Receipt, Verdict
from gateway.ports.grid import FactCarrier
from gateway.ports.store import CommitUnit, EncodedRow, Journal, Loaded, Store

log = logging.getLogger("gridgate.runner")

MAX_QUEUE = 50_000
"""Events that may wait. More than that and the caller is refused rather than memory eaten."""

MAX_BATCH = 512
"""Events of one step: bounds how long the loop is held."""

TICK_S = 10.0
"""Site seconds between telemetry ticks, and while a decrease waits or a load alarms one second."""

FAST_TICK_S = 1.0

GATHER_S = 0.025
"""Real seconds that samples wait for others; with their commit well below 50 ms."""

MAX_GATHERED = 32
"""Messages with samples after which they wait no longer."""

CLOCK_JUMP_S = 5.0
"""Wall against monotonic: a difference beyond this between two looks is a step of the clock."""


Levels: TypeAlias = tuple[Any, ...]
"""What a schedule allows now, and each later cut with its start."""

FENCED = "store.fenced"
"""Code of a unit that does not follow what is stored."""

UNSTORED_REST_S = 1.0
"""Real seconds after a failed commit before the passing of time alone is tried again: a full disk fails fast."""

UNSTORED_AGAIN_S = 20.0
"""Real seconds before the same decrease leaves again, while nobody can remember that it has left."""


class State(Protocol):
    """What the runner reads of a controller's state."""

    @property
    def seq(self) -> int: ...
    @property
    def next_deadline(self) -> datetime: ...
    @property
    def grants(self) -> Mapping[str, Any]: ...
    @property
    def sessions(self) -> Mapping[str, Any]: ...


class Stepper(Protocol):
    """The controller, as the runner needs it."""

    def step(self, state: Any, events: Sequence[ev.Event], now: datetime) -> tuple[Any, Changes]:
        """Next state and what to do."""
        ...


@dataclass(slots=True)
class _Job:
    """One submission: its events and who waits for it."""

    events: Sequence[ev.Event]
    inbound: Inbound | None
    rows: Sequence[AdapterRow]
    outbox: Sequence[OutboxItem]
    waiter: asyncio.Future[Receipt] | None
    journal: Journal | None = None


@dataclass(slots=True)
class _Register:
    """Samples since the last tick: the newest per node and quantity."""

    samples: dict[tuple[NodeId, Quantity], Measurement] = field(default_factory=dict)


@dataclass(slots=True)
class _Gathered:
    """Samples on their way to the store, and who waits for their commit."""

    samples: list[Measurement] = field(default_factory=list)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


class Runner:
    """Implements ``gateway.ports.gate.SiteGate`` for one site.

    Args:
        fast_nodes: nodes whose power decides at once (loads and site meters): a sample of them
            that moved is ticked within a second.
        on_lost_track: the store holds something else than was acknowledged here: a commit that was
            called failed is there after all, or another process has taken the site over. Only a new
            start knows what holds.
    """

    def __init__(  # noqa: PLR0913  wired once, by name, by the composition root
        self,
        site: SiteId,
        *,
        stepper: Stepper,
        state: Any,
        loaded: Loaded,
        store: Store,
        clock: Clock,
        boot: str,
        fast_nodes: Iterable[NodeId] = (),
        on_fatal: Callable[[BaseException], None] = lambda _problem: None,
        on_lost_track: Callable[[], None] = lambda: None,
    ) -> None:
        self.site = site
        self._stepper = stepper
        self._store = store
        self._clock = clock
        self._boot = boot
        self._epoch = loaded.epoch
        self._cold = loaded.cold
        self._state: Any = state
        self._durable: Any = state
        self._rows = dict(loaded.adapter_rows)
        self._queue: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._register = _Register()
        self._gathered = _Gathered()
        self._gather_timer: asyncio.TimerHandle | None = None
        self._fast_nodes = frozenset(fast_nodes)
        self._actuators: list[LimitActuator] = []
        self._in_doubt: dict[tuple[str, str, str], asyncio.Future[Receipt]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._broken_since: datetime | None = None
        self._rest_until = 0.0
        self._unstored: dict[tuple[NodeId, Layer], tuple[Levels, float]] = {}
        self._pending_commits = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_tick: datetime | None = None
        self._journal_row = 0
        self._stopping = False
        self._on_fatal = on_fatal
        self._on_lost_track = on_lost_track
        self.courier = Courier(self, clock, loaded.outbox)

    # --- wiring -----------------------------------------------------------------------------

    def attach(self, actuators: Iterable[LimitActuator]) -> None:
        """Name who carries limits; before :meth:`start`."""
        self._actuators = list(actuators)

    def carry(self, carriers: Iterable[FactCarrier]) -> None:
        """Name who carries facts, once they can, and begin with what is owed."""
        self.courier.attach(carriers)
        self.courier.start()

    async def start(self, config_sha256: str) -> None:
        """Re-evaluate what is due, durably, before anything is served; then run."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(), name=f"site {self.site}")]
        await self.submit([ev.GatewayStarted(self._epoch, self._boot, self._cold, config_sha256)])

    async def stop(self, cause: str) -> None:
        """Seal the end, wait for what is under way, stop. Nothing to do where it never started."""
        if not self._tasks:
            return
        with contextlib.suppress(StoreError):
            await self.submit([ev.GatewayStopping(cause)])
        await self.courier.stop()
        self._stopping = True
        self._wake.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._idle.wait()

    def follow(self, stepper: Stepper, event: ev.Event, fast_nodes: Iterable[NodeId]) -> asyncio.Future[Receipt]:
        """Go on with another controller from the next step on, which begins with ``event``; done when it is stored."""
        self._stepper = stepper
        self._fast_nodes = frozenset(fast_nodes)
        waiter: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._queue.appendleft(_Job([event], None, (), (), waiter))
        self._wake.set()
        return waiter

    @property
    def state(self) -> Any:
        """The controller's current state, for views."""
        return self._state

    @property
    def is_store_broken(self) -> bool:
        """Whether the last commit failed: nothing is acknowledged, nothing rises."""
        return self._broken_since is not None

    # --- the gate ---------------------------------------------------------------------------

    async def submit(
        self,
        events: Sequence[ev.Event],
        *,
        inbound: Inbound | None = None,
        rows: Sequence[AdapterRow] = (),
        outbox: Sequence[OutboxItem] = (),
    ) -> Receipt:
        """See the port."""
        if inbound is not None:
            known = await self._seen(inbound)
            if known is not None:
                return known
        waiter: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        if inbound is not None:
            key = _key(inbound)
            self._in_doubt[key] = waiter
            waiter.add_done_callback(lambda _done: self._in_doubt.pop(key, None))
        self._enqueue(_Job(events, inbound, rows, outbox, waiter))
        return await waiter

    def note(self, events: Sequence[ev.Event]) -> None:
        """See the port."""
        self._enqueue(_Job(events, None, (), (), None))

    def measure(self, samples: Sequence[Measurement]) -> asyncio.Future[None]:
        """See the port. Of all sources, what comes within :data:`GATHER_S` is one hand-over to the store."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.samples.extend(samples)
        self._gathered.waiters.append(waiter)
        count = len(self._gathered.waiters)
        if count == 1:
            self._gather_timer = asyncio.get_running_loop().call_later(GATHER_S, self._hand_over)
        elif count >= MAX_GATHERED:
            self._hand_over()
        return waiter

    def _hand_over(self) -> None:
        """Have the store write what was gathered."""
        if self._gather_timer is not None:
            self._gather_timer.cancel()
            self._gather_timer = None
        gathered, self._gathered = self._gathered, _Gathered()
        loop = asyncio.get_running_loop()
        future = self._store.record_samples(self.site, gathered.samples)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._measured, gathered, done))

    def _measured(self, gathered: _Gathered, done: Future[None]) -> None:
        """The telemetry commit is over."""
        problem = done.exception()
        if problem is None:
            self._note_samples(gathered.samples)
        for waiter in gathered.waiters:
            if waiter.done():
                continue
            if problem is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(problem)

    def _note_samples(self, samples: Sequence[Measurement]) -> None:
        register, fast = self._register.samples, False
        for sample in samples:
            key = (sample.node, sample.quantity)
            known = register.get(key)
            if known is None or known.measured_at <= sample.measured_at:
                register[key] = sample
            fast = fast or sample.node in self._fast_nodes
        if fast and self._tick_age() >= FAST_TICK_S:
            self._wake.set()

    def adapter_rows(self, adapter: str, prefix: str = "") -> dict[str, bytes]:
        """See the port."""
        return {k: v for (name, k), v in self._rows.items() if name == adapter and k.startswith(prefix)}

    def evse(self, evse: NodeId) -> EvseView:
        """See the port."""
        grant = self._state.grants.get(evse)
        session = self._state.sessions.get(evse)
        confirmed = grant.share.confirmed if grant is not None else None
        return EvseView(
            evse=evse,
            limit_w=grant.target_w if grant is not None else Watts(0),
            safe_share_w=confirmed.floor_w if confirmed is not None else Watts(0),
            transaction=session.transaction if session is not None else None,
        )

    # --- deduplication ----------------------------------------------------------------------

    async def _seen(self, inbound: Inbound) -> Receipt | None:
        """The answer to a message that came before; also to one whose commit is still under way."""
        digest = sha256_hex(inbound.body)
        while (doubt := self._in_doubt.get(_key(inbound))) is not None:
            await asyncio.wait([doubt])
        hit = self._store.inbox(inbound.peer, inbound.endpoint, inbound.message_id)
        if hit is None:
            return None
        if hit.sha256 == digest:
            return Receipt(Verdict.DUPLICATE, hit.answer)
        return Receipt(Verdict.CONFLICT)

    # --- the loop ---------------------------------------------------------------------------

    def _enqueue(self, job: _Job) -> None:
        if len(self._queue) >= MAX_QUEUE:
            problem = StoreError(f"site {self.site} has {MAX_QUEUE} events waiting", code="store.queue-full")
            if job.waiter is None:
                log.error("queue full, event dropped", extra={"site": self.site})
                return
            job.waiter.set_exception(problem)
            return
        self._queue.append(job)
        self._wake.set()

    async def _run(self) -> None:
        """The outermost loop of the site: records what went wrong and goes on."""
        last_wall, last_mono = self._clock.now(), self._clock.monotonic()
        while not (self._stopping and not self._queue):
            try:
                await self._wait()
                last_wall, last_mono = self._watch_clock(last_wall, last_mono)
                self._turn()
            except Exception as problem:  # outermost loop of the task: a site must not die of one event
                log.exception("step failed", extra={"site": self.site})
                self._on_fatal(problem)
            await asyncio.sleep(0)

    async def _wait(self) -> None:
        if self._queue:
            return
        due = self._state.next_deadline
        if self._register.samples:
            due = min(due, (self._last_tick or self._clock.now()) + timedelta(seconds=self._tick_s()))
        left = max((due - self._clock.now()).total_seconds(), 0.0)
        wait_s = max(self._clock.wall_seconds(left), self._rest_until - self._clock.monotonic())
        self._wake.clear()
        if self._queue or self._stopping:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), min(wait_s, 60.0))

    def _watch_clock(self, last_wall: datetime, last_mono: float) -> tuple[datetime, float]:
        wall, mono = self._clock.now(), self._clock.monotonic()
        expected = self._clock.wall_seconds((wall - last_wall).total_seconds())
        jump = expected - (mono - last_mono)
        if abs(jump) > CLOCK_JUMP_S:
            self.note([ev.ClockStepped(round(jump))])
        return wall, mono

    def _tick_age(self) -> float:
        if self._last_tick is None:
            return float("inf")
        return (self._clock.now() - self._last_tick).total_seconds()

    def _turn(self) -> None:
        """Take what waits as one step: one decision, one commit, whoever it is that waits for it."""
        now = self._clock.now()
        tick = self._take_tick(now)
        jobs = [] if tick is None else [tick]
        while self._queue and len(jobs) < MAX_BATCH:
            jobs.append(self._queue.popleft())
        if jobs:
            self._step(jobs, now)
        elif now >= self._state.next_deadline and self._clock.monotonic() >= self._rest_until:
            self._step([_Job([ev.DeadlineReached()], None, (), (), None)], now)

    def _tick_s(self) -> float:
        return FAST_TICK_S if any(n in self._fast_nodes for n, _ in self._register.samples) else TICK_S

    def _take_tick(self, now: datetime) -> _Job | None:
        if not self._register.samples or self._tick_age() < self._tick_s():
            return None
        taken = sorted(self._register.samples.values(), key=lambda m: (m.node, m.quantity.value))
        self._register = _Register()
        self._last_tick = now
        samples = tuple(ev.Sample(m.node, m.quantity, m.value, m.measured_at, m.received_at, m.quality) for m in taken)
        data = msgspec.json.encode(samples)
        self._journal_row += 1
        event = ev.TelemetryTick(samples, hashlib.sha256(data).hexdigest(), self._journal_row, self._journal_row)
        return _Job([event], None, (), (), None, Journal(now, "tick", data))

    def _step(self, jobs: list[_Job], now: datetime) -> None:
        events = [event for job in jobs for event in job.events]
        try:
            after, changes = self._stepper.step(self._state, events, now)
        except Exception as problem:
            # A bug of ours: tell who waits, and let one bad event not take its neighbours along.
            if len(jobs) > 1:
                self._one_by_one(jobs, now)
                return
            self._fail(jobs, LocalError(f"step failed: {type(problem).__name__}: {problem}"))
            raise
        unit = self._unit(jobs, changes, now)
        self._state = after
        if _is_empty(unit):
            if not self._pending_commits:
                self._durable = after
            self._answer(jobs, ())
            return
        self._commit(jobs, unit, changes, after)

    def _one_by_one(self, jobs: list[_Job], now: datetime) -> None:
        """Step each job alone, all of them, and then raise what the first bad one raised."""
        problems: list[Exception] = []
        for job in jobs:
            try:
                self._step([job], now)
            except Exception as problem:  # its caller has been told; its neighbours still wait for their turn
                problems.append(problem)
        if problems:
            raise problems[0]

    def _unit(self, jobs: list[_Job], changes: Changes, now: datetime) -> CommitUnit:
        rows = tuple(
            EncodedRow(row.section, row.key, None if row.value is None else msgspec.json.encode(row.value))
            for row in changes.rows
        )
        return CommitUnit(
            site=self.site,
            epoch=self._epoch,
            seq=changes.seq,
            at=now,
            rows=rows,
            evidence=changes.evidence,
            outbox=(*changes.outbox, *(item for job in jobs for item in job.outbox)),
            inbounds=tuple(job.inbound for job in jobs if job.inbound is not None),
            adapter_rows=tuple(row for job in jobs for row in job.rows),
            records=changes.records,
            journal=next((job.journal for job in jobs if job.journal is not None), None),
            lazy=not changes.commands and all(job.waiter is None for job in jobs),
        )

    def _commit(self, jobs: list[_Job], unit: CommitUnit, changes: Changes, after: Any) -> None:
        future = self._store.commit(unit)
        self._pending_commits += 1
        self._idle.clear()
        loop = asyncio.get_running_loop()

        def done(finished: Future[tuple[EvidenceId, ...]]) -> None:
            loop.call_soon_threadsafe(self._committed, jobs, unit, changes, after, finished)

        future.add_done_callback(done)

    def _committed(
        self,
        jobs: list[_Job],
        unit: CommitUnit,
        changes: Changes,
        after: Any,
        finished: Future[tuple[EvidenceId, ...]],
    ) -> None:
        self._pending_commits -= 1
        if not self._pending_commits:
            self._idle.set()
        problem = finished.exception()
        if problem is not None:
            self._not_committed(jobs, changes, problem)
            return
        if unit.seq and unit.seq != self._durable.seq + 1:
            self._lose_track("a commit that had failed is stored")
        self._broken_since = None
        self._rest_until = 0.0
        self._unstored.clear()
        self._durable = after
        for row in unit.adapter_rows:
            if row.value is None:
                self._rows.pop((row.adapter, row.key), None)
            else:
                self._rows[(row.adapter, row.key)] = row.value
        self._answer(jobs, tuple(zip(finished.result(), unit.evidence, strict=True)))
        self._dispatch(changes.commands)
        self.courier.take(unit.outbox)

    def _not_committed(self, jobs: list[_Job], changes: Changes, problem: BaseException) -> None:
        """Fall back to what is durable; decreases leave all the same, nothing is acknowledged.

        A decision on top of one that failed is none: what it calls a decrease may be one only against
        an increase that never left.
        """
        if self._broken_since is None:
            self._broken_since = self._clock.now()
            log.error("store not writable: %s", problem, extra={"site": self.site})
        self._rest_until = self._clock.monotonic() + UNSTORED_REST_S
        is_first = changes.seq == self._durable.seq + 1
        if is_first or not self._pending_commits:
            self._state = self._durable
        if is_first and isinstance(problem, StoreError) and problem.code == FENCED:
            self._lose_track(str(problem))
        elif is_first:
            self._dispatch([c for c in changes.commands if c.tightens and self._is_news(c)])
        self._fail(jobs, problem if isinstance(problem, StoreError) else StoreError(str(problem)))

    def _lose_track(self, why: str) -> None:
        log.critical("the store is ahead of this process: %s", why, extra={"site": self.site})
        self._on_lost_track()

    def _is_news(self, command: Command) -> bool:
        """Whether the same did not leave a moment ago: what is not stored is decided again and again."""
        now, place = self._clock.monotonic(), (command.evse, command.layer)
        first, *cuts = command.schedule.steps
        levels = (first.limit_w, *((step.start, step.limit_w) for step in cuts))
        before, sent_at = self._unstored.get(place, (None, 0.0))
        if levels == before and now < sent_at + UNSTORED_AGAIN_S:
            return False
        self._unstored[place] = (levels, now)
        return True

    def _fail(self, jobs: list[_Job], problem: GatewayError) -> None:
        for job in jobs:
            if job.waiter is not None and not job.waiter.done():
                job.waiter.set_exception(problem)

    def _answer(self, jobs: list[_Job], sealed: Sequence[tuple[EvidenceId, EvidenceDraft]]) -> None:
        for job in jobs:
            if job.waiter is None or job.waiter.done():
                continue
            if job.inbound is None:
                job.waiter.set_result(Receipt(Verdict.STORED, b"", tuple(id_ for id_, _ in sealed)))
                continue
            mine = job.inbound.message_id
            own = tuple(id_ for id_, draft in sealed if draft.subject.get("request_id") == mine)
            job.waiter.set_result(Receipt(Verdict.STORED, job.inbound.answer, own))

    def _dispatch(self, commands: Sequence[Command]) -> None:
        """Hand commands to whoever serves the station: tightening ones first."""
        for command in sorted(commands, key=lambda c: not c.tightens):
            actuator = next((a for a in self._actuators if a.serves(command.station)), None)
            if actuator is None:
                self.note([ev.CommandAnswered(command.id, command.evse, command.generation, ev.Outcome.NOT_SENT)])
            else:
                actuator.apply(command)

    # --- for the courier --------------------------------------------------------------------

    def commit_outbox(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]:
        """Commit progress of outgoing facts; no state changes."""
        return self._store.commit(unit)

    @property
    def epoch(self) -> int:
        """This life's number."""
        return self._epoch


def _key(inbound: Inbound) -> tuple[str, str, str]:
    return (inbound.peer, inbound.endpoint, inbound.message_id)


def _is_empty(unit: CommitUnit) -> bool:
    return not (
        unit.rows or unit.evidence or unit.outbox or unit.inbounds or unit.adapter_rows or unit.records or unit.journal
    )
