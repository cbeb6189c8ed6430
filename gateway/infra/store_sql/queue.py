"""A thread that takes queued jobs in order, as many as there are, and hands them on as one group."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from gateway.domain.errors import StoreError

log = logging.getLogger("gridgate.store")

MAX_QUEUE = 50_000
"""Jobs that may wait; more are refused rather than memory eaten."""

MAX_GROUP = 1_000
"""Jobs of one transaction: bounds how long the first of them waits."""

P = TypeVar("P")
R = TypeVar("R")


@dataclass(slots=True)
class Job(Generic[P, R]):
    """Something to write, and who waits for it."""

    payload: P
    lazy: bool = False
    future: Future[R] = field(default_factory=Future)
    queued_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # From here on nobody can cancel it: what is queued may be on disk already.
        self.future.set_running_or_notify_cancel()


class Worker(Protocol[P, R]):
    """What the thread does with a group. All methods run on the thread."""

    def handle(self, jobs: Sequence[Job[P, R]]) -> None:
        """Resolve every future of the group."""
        ...

    def chore_in(self, now: float) -> float | None:
        """Monotonic seconds until :meth:`chore` wants to run, None for not at all."""
        ...

    def chore(self, now: float) -> None:
        """Something small between two groups."""
        ...

    def finish(self) -> None:
        """The queue is empty and will stay so."""
        ...


class GroupThread(Generic[P, R]):
    """One queue, one thread, one worker.

    Args:
        linger_s: how long a lazy job may wait for company; an urgent one takes it along at once.
    """

    def __init__(self, name: str, worker: Worker[P, R], linger_s: float) -> None:
        self._worker = worker
        self._linger_s = linger_s
        self._queue: deque[Job[P, R]] = deque()
        self._urgent = 0
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, payload: P, *, lazy: bool = False) -> Future[R]:
        """Queue a job; commit order is submission order."""
        job: Job[P, R] = Job(payload, lazy)
        with self._wake:
            refused = self._refusal()
            if refused is None:
                self._queue.append(job)
                self._urgent += not lazy
                self._wake.notify()
        if refused is not None:
            job.future.set_exception(refused)
        return job.future

    def close(self) -> None:
        """Finish what is queued, then end the thread. A second call waits for the first."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _refusal(self) -> StoreError | None:
        if self._closing:
            return StoreError("the store is closed", code="store.closed")
        if len(self._queue) >= MAX_QUEUE:
            return StoreError(f"{MAX_QUEUE} jobs wait already", code="store.overloaded", hint="the disk is too slow")
        return None

    def _run(self) -> None:
        while (jobs := self._next_group()) is not None:
            self._guarded(partial(self._turn, jobs), jobs)
        self._guarded(self._worker.finish, ())

    def _guarded(self, act: Callable[[], None], jobs: Sequence[Job[P, R]]) -> None:
        try:
            act()
        except Exception as problem:  # outermost loop of the thread: who waits must hear of it
            log.exception("the store's thread met a bug")
            for job in jobs:
                if not job.future.done():
                    job.future.set_exception(StoreError(f"{type(problem).__name__}: {problem}"))

    def _turn(self, jobs: Sequence[Job[P, R]]) -> None:
        if jobs:
            self._worker.handle(jobs)
        now = time.monotonic()
        due = self._worker.chore_in(now)
        if due is not None and due <= 0:
            self._worker.chore(now)

    def _next_group(self) -> list[Job[P, R]] | None:
        """Wait for the next group; an empty one when a chore is due, None at the end."""
        with self._wake:
            while not self._closing:
                now = time.monotonic()
                waits = [w for w in (self._group_in(now), self._worker.chore_in(now)) if w is not None]
                if waits and min(waits) <= 0:
                    break
                self._wake.wait(min(waits) if waits else None)
            if self._closing and not self._queue:
                return None
            if not self._closing and self._group_in(time.monotonic()) != 0:
                return []
            return self._take()

    def _group_in(self, now: float) -> float | None:
        if not self._queue:
            return None
        if self._urgent or len(self._queue) >= MAX_GROUP:
            return 0
        return max(0, self._queue[0].queued_at + self._linger_s - now)

    def _take(self) -> list[Job[P, R]]:
        jobs = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_GROUP))]
        self._urgent -= sum(not job.lazy for job in jobs)
        return jobs
