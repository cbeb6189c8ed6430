"""One station's connection in use: moves texts, instants and commits between the core and the world.

Texts are taken as they come, so that answers to our CALLs are seen at once; the station's own CALLs
are served one after the other, each after the commit of the one before. A station that sends faster
than it is served is read more slowly.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from websockets.exceptions import ConnectionClosed

from adapters.ocpp.core import Action, Close, Job, Note, StationCore
from adapters.ocpp.session import Received, Send
from adapters.ocpp.websocket import StationSocket
from gateway.domain.effects import Command
from gateway.domain.errors import GatewayError
from gateway.domain.events import Event
from gateway.kit.peer import PeerInfo
from gateway.ports.clock import Clock
from gateway.ports.gate import Receipt, SiteGate, Verdict

MAX_JOBS = 32
"""Unserved CALLs of one station before its socket is left unread; a conforming one has one."""

_BROKEN = {1007: "text that is no UTF-8", 1009: "a frame above the bound"}

_log = logging.getLogger("gridgate.ocpp")


class Line:
    """A connection in use. ``end`` may be called from outside and more than once."""

    def __init__(
        self,
        websocket: StationSocket,
        core: StationCore,
        peer: PeerInfo,
        gate: SiteGate,
        clock: Clock,
    ) -> None:
        self.core = core
        self.peer = peer
        self.finished = asyncio.Event()
        """Set once the connection is gone and nothing of it is being committed any more."""
        self._websocket = websocket
        self._gate = gate
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._jobs: list[Action] = []
        self._unread: list[bytes] = []
        self._committing: asyncio.Future[Receipt] | asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._serving = False
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._over = False

    async def run(self) -> None:
        """Serve until the connection is gone."""
        try:
            self.perform(self.core.open(self._clock.now(), self._clock.monotonic()))
            self._websocket.serve(self._take)
            await self._websocket.wait_closed()
            self.perform(self._broken_off())
        finally:
            self.end(self._cause())
            # What is being committed is waited for: its outcome belongs to this connection.
            while self._committing is not None:
                await asyncio.wait({self._committing})
            self.finished.set()

    def end(self, cause: str) -> None:
        """Tell that this connection is over, once; what was pending ends with it."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        events = self.core.gone(cause)
        if events:
            self._gate.note(events)

    async def close(self, code: int, reason: str) -> None:
        """Close the WebSocket and wait for its end."""
        await self._websocket.close(code, reason)

    async def answers(self, within_s: float) -> bool:
        """Whether the other end still answers a ping."""
        try:
            async with asyncio.timeout(within_s):
                await (await self._websocket.ping())
        except (ConnectionClosed, TimeoutError):
            return False
        return True

    def apply(self, command: Command) -> None:
        """Queue a limit. Events are told in the loop's next turn: the caller is the controller's."""
        actions = self.core.command(command, self._clock.now(), self._clock.monotonic())
        events = tuple(event for action in actions if isinstance(action, Note) for event in action.events)
        if events:
            self._loop.call_soon(self._gate.note, events)
        self.perform([action for action in actions if not isinstance(action, Note)])

    def perform(self, actions: list[Action]) -> None:
        """Do what the core asks; never blocks."""
        for action in actions:
            if isinstance(action, Job | Received):
                self._jobs.append(action)
            else:
                self._do(action)
        self._serve()
        self._arm()

    def _do(self, action: Send | Note | Close) -> None:
        match action:
            case Send(text=text):
                if not self._over and self._closing is None:
                    self._websocket.write(text)
            case Note(events=events):
                self._gate.note(events)
            case Close(code=code, reason=reason):
                if not self._over and self._closing is None:
                    self._closing = self._loop.create_task(self.close(code, reason))

    def _take(self, texts: list[bytes]) -> None:
        """Texts came."""
        if self._over:
            return
        self._unread += texts
        if not self._reading:
            self._read()

    def _read(self) -> None:
        """Take some of what came; the rest has its turn after others, and after what is being served."""
        self._reading = False
        taken = 0
        try:
            while self._unread and not self._over and taken < MAX_JOBS and len(self._jobs) <= MAX_JOBS:
                taken += 1
                self.perform(self.core.receive(self._unread.pop(0), self._clock.now(), self._clock.monotonic()))
        except Exception as bug:  # outermost call of the loop: a station must not be half served
            self._give_up(bug)
        if not self._unread:
            self._websocket.read_on()
            return
        self._websocket.leave_unread()
        self._read_later()

    def _read_later(self) -> None:
        if self._unread and not self._reading and len(self._jobs) <= MAX_JOBS:
            self._reading = True
            self._loop.call_soon(self._read)

    def _serve(self) -> None:
        """Serve CALLs until one has to wait for its commit."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._jobs and self._committing is None and not self._over:
                self._serve_one(self._jobs.pop(0))
        finally:
            self._serving = False

    def _serve_one(self, action: Action) -> None:
        match action:
            case Received():
                # What follows a job waits for its commit, as the next CALL does.
                self._jobs[:0] = self.core.handle(action, self._clock.now(), self._clock.monotonic())
            case Job():
                self._commit(action)
            case _:
                self._do(action)

    def _commit(self, job: Job) -> None:
        """Make it durable; :meth:`_committed` acknowledges."""
        self.core.begin(job)
        if job.submit:
            self._committing = self._loop.create_task(self._submit(job), name=f"ocpp-{self.core.settings.id}")
        else:
            self._committing = asyncio.ensure_future(self._gate.measure(job.samples))
        self._committing.add_done_callback(partial(self._committed, job))

    async def _submit(self, job: Job) -> Receipt:
        receipt = await self._gate.submit(job.events, inbound=job.inbound, rows=job.rows)
        if receipt.verdict is Verdict.CONFLICT and job.inbound is not None:
            renamed = job.renamed()
            receipt = await self._gate.submit(renamed.events, inbound=renamed.inbound, rows=renamed.rows)
        self.core.stored(job, receipt)
        if job.samples:
            await self._gate.measure(job.samples)
        return receipt

    def _committed(self, job: Job, done: asyncio.Future[Receipt] | asyncio.Future[None]) -> None:
        """Acknowledge what is durable; the one place where errors become a CALLERROR."""
        self._committing = None
        if done.cancelled():
            return
        problem = done.exception()
        if problem is not None and not isinstance(problem, GatewayError):
            self._give_up(problem)
            return
        if isinstance(problem, GatewayError):
            _log.error("station %s: not stored (%s)", self.core.settings.id, problem.code)
        if self._over:
            return
        try:
            now, at = self._clock.now(), self._clock.monotonic()
            follows = self.core.done(job, done.result(), now, at) if problem is None else self.core.failed(job, now, at)
            self.perform(follows)
            self._read_later()
        except Exception as bug:  # outermost call of the loop: a station must not be half served
            self._give_up(bug)

    def _give_up(self, problem: BaseException) -> None:
        _log.error("station %s: connection given up", self.core.settings.id, exc_info=problem)
        self._websocket.transport.abort()

    def _arm(self) -> None:
        """Wake at the core's deadline. A timer that is early looks again: most deadlines only move away."""
        deadline = self.core.next_deadline
        if deadline is None or self._over or (self._timer is not None and self._armed_for <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - self._clock.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._over:
            self.perform(self.core.tick(self._clock.now(), self._clock.monotonic()))

    def _broken_off(self) -> list[Action]:
        """What the WebSocket itself refused: a frame above the bound, or text that is none (RFC 6455 §7.4.1)."""
        sent = self._websocket.protocol.close_sent
        reason = None if sent is None else _BROKEN.get(sent.code)
        if reason is None or self._over:
            return []
        return self.core.refused(str(int(sent.code if sent else 0)), reason, self._clock.now(), self._clock.monotonic())

    def _cause(self) -> str:
        code, reason = self._websocket.close_code, self._websocket.close_reason
        return f"closed {code} {reason or ''}".strip() if code is not None else "connection lost"


def note_later(loop: asyncio.AbstractEventLoop, gate: SiteGate, events: tuple[Event, ...]) -> None:
    """Tell the gate in the loop's next turn."""
    loop.call_soon(gate.note, events)
