"""One station's WebSocket: moves texts, instants and commits between the core and the world.

Three tasks: the reader never waits for a commit, so that answers to our CALLs are seen at once; the
worker takes the station's own CALLs one after the other; the writer writes. A station that sends
faster than it is served is read more slowly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from adapters.ocpp.core import Action, Close, Job, Note, StationCore
from adapters.ocpp.session import Received, Send
from gateway.domain.effects import Command
from gateway.domain.errors import GatewayError
from gateway.domain.events import Event
from gateway.kit.peer import PeerInfo
from gateway.ports.clock import Clock
from gateway.ports.gate import Receipt, SiteGate, Verdict

MAX_JOBS = 32
"""Unserved CALLs of one station before its socket is left unread; a conforming one has one."""

MAX_UNWRITTEN = 64
"""Texts that a station leaves unread before it is cut off: answers it owes itself, and one CALL."""

_BROKEN = {1007: "text that is no UTF-8", 1009: "a frame above the bound"}

_log = logging.getLogger("gridgate.ocpp")


@dataclass(frozen=True, slots=True)
class _Stop:
    """Last item of a queue."""


class Line:
    """A connection in use. ``end`` may be called from outside and more than once."""

    def __init__(
        self,
        websocket: ServerConnection,
        core: StationCore,
        peer: PeerInfo,
        gate: SiteGate,
        clock: Clock,
    ) -> None:
        self.core = core
        self.peer = peer
        self._websocket = websocket
        self._gate = gate
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._jobs: asyncio.Queue[Job | Received | _Stop] = asyncio.Queue()
        self._texts: asyncio.Queue[str | Close] = asyncio.Queue(MAX_UNWRITTEN)
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    async def run(self) -> None:
        """Serve until the connection is gone."""
        worker = self._loop.create_task(self._work(), name=f"ocpp-work-{self.core.settings.id}")
        writer = self._loop.create_task(self._write(), name=f"ocpp-write-{self.core.settings.id}")
        for task in (worker, writer):
            task.add_done_callback(self._task_ended)
        try:
            self.perform(self.core.open(self._clock.now(), self._clock.monotonic()))
            await self._read()
            self.perform(self._broken_off())
        finally:
            self.end(self._cause())
            self._jobs.put_nowait(_Stop())
            # What is being committed is waited for: its outcome belongs to this connection.
            await asyncio.wait({worker})
            writer.cancel()

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
            match action:
                case Send(text=text):
                    self._put(text)
                case Note(events=events):
                    self._gate.note(events)
                case Close():
                    self._put(action)
                case Job() | Received():
                    self._jobs.put_nowait(action)
        self._arm()

    def _put(self, item: str | Close) -> None:
        if self._over:
            return
        try:
            self._texts.put_nowait(item)
        except asyncio.QueueFull:
            self._websocket.transport.abort()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.core.next_deadline
        if deadline is not None and not self._over:
            self._timer = self._loop.call_later(max(0.0, deadline - self._clock.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._over:
            self.perform(self.core.tick(self._clock.now(), self._clock.monotonic()))

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self._websocket:
                if self._over:
                    return
                self.perform(self.core.receive(text, self._clock.now(), self._clock.monotonic()))
                if self._jobs.qsize() > MAX_JOBS:
                    await self._jobs.join()

    async def _write(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                item = await self._texts.get()
                if isinstance(item, Close):
                    await self._websocket.close(item.code, item.reason)
                    return
                await self._websocket.send(item)

    async def _work(self) -> None:
        while True:
            item = await self._jobs.get()
            try:
                if isinstance(item, _Stop) or self._over:
                    return
                await self._serve(item)
            finally:
                self._jobs.task_done()

    async def _serve(self, item: Job | Received) -> None:
        if isinstance(item, Job):
            await self._commit(item)
            return
        for action in self.core.handle(item, self._clock.now(), self._clock.monotonic()):
            if isinstance(action, Job):
                await self._commit(action)
            else:
                self.perform([action])

    async def _commit(self, job: Job) -> None:
        """Make it durable, then acknowledge; the one place where errors become a CALLERROR."""
        self.core.begin(job)
        receipt: Receipt | None = None
        try:
            if job.submit:
                receipt = await self._submit(job)
                self.core.stored(job, receipt)
            if job.samples:
                await self._gate.measure(job.samples)
        except GatewayError as problem:
            _log.error("station %s: not stored (%s)", self.core.settings.id, problem.code)
            self._follow(lambda: self.core.failed(job, self._clock.now(), self._clock.monotonic()))
            return
        self._follow(lambda: self.core.done(job, receipt, self._clock.now(), self._clock.monotonic()))

    async def _submit(self, job: Job) -> Receipt:
        receipt = await self._gate.submit(job.events, inbound=job.inbound, rows=job.rows)
        if receipt.verdict is Verdict.CONFLICT and job.inbound is not None:
            renamed = job.renamed()
            receipt = await self._gate.submit(renamed.events, inbound=renamed.inbound, rows=renamed.rows)
        return receipt

    def _follow(self, then: Callable[[], list[Action]]) -> None:
        if not self._over:
            self.perform(then())

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A task that broke takes the connection with it: a station must not be half served."""
        if task.cancelled() or task.exception() is None:
            return
        _log.error("station %s: connection given up", self.core.settings.id, exc_info=task.exception())
        self._websocket.transport.abort()

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
