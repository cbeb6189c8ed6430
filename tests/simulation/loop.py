"""An event loop whose time jumps to the next timer, and processes in it that can be killed.

Everything that a process starts (tasks, timers, callbacks) runs in its context. Killed, none of it
runs any more: no ``finally``, no last word, as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import selectors
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.domain.errors import GatewayError

MOST_TURNS = 100_000
"""Turns of the loop at one instant: beyond it something spins."""

LEAST_S = 1e-6
"""Of a timer: what is due a rounding error from now would be due for ever."""

_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class StandsStillError(Exception):
    """Time does not pass: something spins, or nothing is left to wait for."""


class Process:
    """What shares one life. ``context`` is for whoever hands something in from outside."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.alive = True
        self._loop = loop
        self._asleep = False
        self.tasks: set[asyncio.Task[Any]] = set()
        """Kept: a task that is collected would run its ``finally``."""
        self._held: list[tuple[Callable[..., object], tuple[Any, ...], contextvars.Context]] = []
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)

    def kill(self) -> None:
        """Nothing of it runs from now on."""
        self.alive = False

    def sleep(self) -> None:
        """The machine sleeps: what would run waits."""
        self._asleep = True

    def wake(self) -> None:
        """Everything that waited runs, in order."""
        self._asleep = False
        held, self._held = self._held, []
        for callback, arguments, context in held:
            self._loop.call_soon(callback, *arguments, context=context)

    def run(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call, unless it is dead or asleep."""
        if self._asleep:
            self._held.append((callback, arguments, contextvars.copy_context()))
        elif self.alive:
            callback(*arguments)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        return self._loop.create_task(work, context=self.context)

    def soon(self, delay_s: float, callback: Callable[..., object], *arguments: Any) -> None:
        """Call within this process, after a while."""
        self._loop.call_at(self._loop.time() + delay_s, callback, *arguments, context=self.context)


class _Jump(selectors.BaseSelector):
    """Waits for nothing: where the loop would sleep, its time moves on."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.turns = 0
        self.on_quiet: Callable[[], None] = lambda: None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, -1, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if timeout is None:
            raise StandsStillError(f"at {self.now_s:.1f} s nothing is left to wait for")
        if timeout > 0:
            self.on_quiet()
            self.now_s += timeout
            self.turns = 0
        elif self.turns > MOST_TURNS:
            raise StandsStillError(f"at {self.now_s:.1f} s something spins")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` is seconds since its start. ``on_quiet`` is called before each jump."""

    def __init__(self, on_quiet: Callable[[], None] = lambda: None) -> None:
        self._jump = _Jump()
        self._buried = False
        super().__init__(self._jump)
        self._jump.on_quiet = on_quiet
        self.set_exception_handler(self._complain)
        self.complaints: list[str] = []

    def time(self) -> float:
        return self._jump.now_s

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        process = _process_of(context)
        if self._buried:
            return asyncio.Handle(callback, args, self, context)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(process.run, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        process = _process_of(context)
        when = max(when, self.time() + LEAST_S)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, process.run, callback, *args, context=context)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        task = super().create_task(coro, name=name, context=context)
        process = _process_of(context)
        if process is not None:
            process.tasks.add(task)
            task.add_done_callback(process.tasks.discard)
        return task

    def bury(self, let_go: Callable[[], None]) -> None:
        """Close; ``let_go`` of what killed processes have left: nobody hears their last words."""
        self.close()
        self._buried = True
        hook, sys.unraisablehook = sys.unraisablehook, lambda _unraisable: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # tasks that were killed before their first step
                let_go()
                gc.collect()
        finally:
            sys.unraisablehook = hook

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def _complain(self, _loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        task = told.get("task")
        if task is not None and "destroyed but it is pending" in told["message"]:
            return  # of a process that was killed
        if "never retrieved" in told["message"] and isinstance(told.get("exception"), GatewayError):
            return  # refused to a process that was killed before it heard of it
        self.complaints.append(f"{told['message']}: {told.get('exception')!r}")


def _process_of(context: contextvars.Context | None) -> Process | None:
    return _PROCESS.get() if context is None else context.get(_PROCESS)
