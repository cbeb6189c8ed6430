"""The store under the simulation: the real one on a real file, with time, faults and deaths of its own.

What is submitted waits as in group commit, then goes to the store's thread one unit after the other,
and is waited for: the same seed writes the same file. Death is a copy of the files at that moment.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.domain.errors import StoreError
from gateway.domain.ids import EvidenceId, SiteId
from gateway.domain.measurement import Measurement
from gateway.infra.store_sql import SqliteStore, open_store
from gateway.infra.store_sql.connection import connect_writer
from gateway.ports.store import CommitUnit

LAZY_S = 1.0
LATENCY_S = (0.002, 0.06)
SLOW_S = (0.5, 6.0)
"""Of a commit behind somebody else's, now and then."""

ORIGIN = "example.org/gridgate/depot"


@dataclass
class _Waiting:
    unit: CommitUnit
    future: Future[tuple[EvidenceId, ...]]


class Disk:
    """Implements what the runner needs of a store. One object per life of the process."""

    def __init__(self, folder: Path, rng: random.Random, now: Callable[[], datetime]) -> None:
        self.folder = folder
        self.armed = ""
        """At the next commit with evidence: die ``before`` or ``after`` it, or call it failed in ``doubt``."""
        self.on_death: Callable[[], None] = lambda: None
        self.on_doubt: Callable[[], None] = lambda: None
        self.on_refusal: Callable[[], None] = lambda: None
        self._random = rng
        self._connection: sqlite3.Connection | None = None
        self.is_full = False
        """Set by :meth:`fill` and :meth:`free` alone."""
        self._queue: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._store = open_store(
            folder / "gridgate.db",
            head_path=folder / "gridgate.head",
            key_path=folder / "gridgate-evidence.key",
            origin=ORIGIN,
            clock_now=now,
            connect=self._connect,
        )

    # --- the store's port -----------------------------------------------------------------------

    def commit(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]:
        """Queue a unit."""
        waiting = _Waiting(unit, Future())
        self._queue.append(waiting)
        slow = self._random.random() < 0.01
        wait_s = LAZY_S if unit.lazy else self._random.uniform(*(SLOW_S if slow else LATENCY_S))
        self._wake(wait_s)
        return waiting.future

    def record_samples(self, site: SiteId, samples: Sequence[Measurement]) -> Future[None]:
        """Write samples; refused on a full disk."""
        future: Future[None] = Future()
        problem = StoreError("disk full", code="store.not-committed") if self.is_full else None
        if problem is None:
            self._store.record_samples(site, samples).result()
        self._loop.call_later(self._random.uniform(*LATENCY_S), _settle, future, problem)
        return future

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    # --- faults ---------------------------------------------------------------------------------

    def fill(self) -> None:
        """No page more."""
        self.is_full = True
        self._limit()

    def free(self) -> None:
        """There is room again."""
        self.is_full = False
        self._limit()

    def die(self, into: Path) -> None:
        """Leave the files as they are now in another folder, and close."""
        into.mkdir()
        for file in self.folder.iterdir():
            if not file.name.endswith((".lock", "-shm")):
                shutil.copy2(file, into / file.name)
        self.free()
        self._store.close()

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _wake(self, wait_s: float) -> None:
        due = self._loop.time() + wait_s
        if self._timer is not None and self._timer.when() <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(wait_s, self._write)

    def _write(self) -> None:
        self._timer = None
        queue, self._queue = self._queue, []
        for waiting in queue:
            armed = self.armed if waiting.unit.evidence else ""
            if armed == "before":
                self.on_death()
                return
            stored = self._store.commit(replace(waiting.unit, lazy=False))
            problem = stored.exception()
            if armed == "after" and problem is None:
                self.on_death()
                return
            if armed == "doubt" and problem is None:
                self.armed = ""
                self.on_doubt()
                problem = StoreError("the disk reports an error", code="store.not-committed")
            if problem is None:
                waiting.future.set_result(stored.result())
            else:
                self.on_refusal()
                waiting.future.set_exception(problem)

    def _connect(self, path: Path) -> sqlite3.Connection:
        self._connection = connect_writer(path)
        self._limit()
        return self._connection

    def _limit(self) -> None:
        if self._connection is None:
            return
        try:
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            self._connection.execute(f"PRAGMA max_page_count={pages if self.is_full else 2**30}")
        except sqlite3.ProgrammingError:
            self._connection = None  # closed by the store after an error: the next one is limited as it opens


def _settle(future: Future[None], problem: StoreError | None) -> None:
    if problem is None:
        future.set_result(None)
    else:
        future.set_exception(problem)


__all__ = ["ORIGIN", "Disk", "SqliteStore"]
