"""The writer of the main file: group commit, signed checkpoints, retention. Runs on one thread."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from gateway.domain.errors import EvidenceError, GatewayError, StoreError
from gateway.domain.merkle import Frontier
from gateway.infra.evidence_key import write_durably
from gateway.infra.store_sql.connection import Connect
from gateway.infra.store_sql.log import EvidenceLog, microseconds
from gateway.infra.store_sql.queue import Job
from gateway.ports.store import LogHead

log = logging.getLogger("gridgate.store")

CHECKPOINT_EVERY_S = 1.0
"""Real seconds between two signed heads of a growing log. One is due as soon as this has passed, so
that no entry stays unsigned for longer while the disk works."""

KEEP = timedelta(days=7)
"""How long message ids, delivered facts and journal rows are kept: repetitions come within hours."""

PRUNE_EVERY_S = 60.0
PRUNE_ROWS = 500
"""Rows of one pruning transaction: a few milliseconds between two groups."""

Act: TypeAlias = Callable[[sqlite3.Connection, EvidenceLog], Any]
"""One job: writes inside its savepoint and returns what its future shall hold."""

_REFUSALS = (
    GatewayError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    ValueError,
    TypeError,
    OverflowError,
)
"""What is wrong with one unit alone. Every other SQLite error is about the file, so about all."""

_PRUNE = {
    "inbox": (
        "DELETE FROM inbox WHERE (peer, endpoint, message_id) IN "
        "(SELECT peer, endpoint, message_id FROM inbox WHERE at < ? ORDER BY at LIMIT ?)"
    ),
    "journal": "DELETE FROM journal WHERE ord IN (SELECT ord FROM journal WHERE at < ? ORDER BY at LIMIT ?)",
    "outbox": (
        "DELETE FROM outbox WHERE ord IN (SELECT ord FROM outbox WHERE status IN ('done', 'dead') AND at < ? LIMIT ?)"
    ),
}


class MainFile:
    """Owns the connection. A commit whose outcome is unknown is never retried on the same handle."""

    def __init__(
        self,
        path: Path,
        evidence: EvidenceLog,
        *,
        head_path: Path,
        connect: Connect,
        clock_now: Callable[[], datetime],
    ) -> None:
        self._path = path
        self._evidence = evidence
        self._head_path = head_path
        self._connect = connect
        self._clock_now = clock_now
        self._connection: sqlite3.Connection | None = connect(path)
        evidence.load(self._connection)
        self._committed = evidence.frontier
        self._in_doubt: Frontier | None = None
        self._suspect: EvidenceError | None = None
        self._signed_size = -1
        self._sign_at = 0.0
        self._prune_at = time.monotonic() + PRUNE_EVERY_S
        self.head = _head(self._committed)

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection; reopened and compared after an error.

        Raises:
            StoreError: the file cannot be opened now.
            EvidenceError: what is there is not what was committed; for good.
        """
        if self._suspect is not None:
            raise self._suspect
        if self._connection is None:
            self._connection = self._reopen()
        return self._connection

    # --- groups -----------------------------------------------------------------------------

    def handle(self, jobs: Sequence[Job[Act, Any]]) -> None:
        """Commit a group and tell everybody."""
        try:
            outcomes = self._transaction([job.payload for job in jobs])
        except StoreError as problem:
            for job in jobs:
                job.future.set_exception(StoreError(str(problem), code=problem.code, hint=problem.hint))
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def run(self, act: Act) -> Any:
        """One job in a transaction of its own, on the caller's thread: while opening only.

        Raises:
            StoreError: refused or not committed.
        """
        (outcome,) = self._transaction([act])
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    def _transaction(self, acts: Sequence[Act]) -> list[Any]:
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._check_alone(connection)
            outcomes = [self._in_savepoint(connection, act) for act in acts]
            if self._evidence.frontier.size != self._committed.size:
                self._evidence.store_head(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, EvidenceError) as problem:
            self._abandon()
            raise _not_committed(problem) from problem
        self._committed = self._evidence.frontier
        self.head = _head(self._committed)
        return outcomes

    def _in_savepoint(self, connection: sqlite3.Connection, act: Act) -> Any:
        before = self._evidence.begin_unit()
        connection.execute("SAVEPOINT unit")
        try:
            outcome = act(connection, self._evidence)
        except _REFUSALS as problem:
            if not connection.in_transaction:
                raise sqlite3.OperationalError(f"the transaction is gone: {problem}") from problem
            connection.execute("ROLLBACK TO unit")
            self._evidence.restore(before)
            outcome = _refused(problem)
        connection.execute("RELEASE unit")
        return outcome

    def _check_alone(self, connection: sqlite3.Connection) -> None:
        """Two writers of one log would sign two histories; the lock file should have seen to it."""
        row = connection.execute("SELECT size FROM head WHERE one = 1").fetchone()
        if row is not None and row[0] != self._committed.size:
            raise EvidenceError(
                f"the log has {row[0]} entries, this process wrote {self._committed.size}", code="store.fork-suspected"
            )

    def _abandon(self) -> None:
        """After an error nobody knows what is on disk: close; the next user opens and looks."""
        self._in_doubt = self._evidence.frontier
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.rollback()
            with suppress(sqlite3.Error):
                connection.close()
        self._evidence.restore(self._committed)

    def _reopen(self) -> sqlite3.Connection:
        try:
            connection = self._connect(self._path)
            self._evidence.load(connection)
        except (sqlite3.Error, EvidenceError) as problem:
            self._evidence.restore(self._committed)
            raise _not_committed(problem) from problem
        found = self._evidence.frontier
        if found not in (self._committed, self._in_doubt):
            self._suspect = EvidenceError(
                f"after an error the log has {found.size} entries where {self._committed.size} were committed",
                code="store.fork-suspected",
            )
            connection.close()
            raise self._suspect
        log.warning("store reopened with %d entries", found.size)
        self._committed, self._in_doubt = found, None
        self.head = _head(found)
        return connection

    # --- chores -----------------------------------------------------------------------------

    def chore_in(self, now: float) -> float:
        """Seconds until a head is to be signed or old rows are to go."""
        due = self._prune_at
        if self._committed.size != self._signed_size:
            due = min(due, self._sign_at)
        return due - now

    def chore(self, now: float) -> None:
        """Sign a head if one is due, else prune."""
        if self._committed.size != self._signed_size and now >= self._sign_at:
            self._sign_at = now + CHECKPOINT_EVERY_S
            try:
                self.sign()
            except StoreError as problem:
                log.error("head not signed: %s", problem)  # noqa: TRY400  the message says it all; it repeats
        elif now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_S
            try:
                more = self.prune()
            except StoreError as problem:
                log.error("old rows not removed: %s", problem)  # noqa: TRY400  as above
            else:
                self._prune_at = now + (CHECKPOINT_EVERY_S if more else PRUNE_EVERY_S)

    def sign(self) -> None:
        """Sign the committed head: a row first, then the file outside the database.

        Raises:
            StoreError: one of them could not be written.
        """
        frontier = self._committed
        if frontier.size == self._signed_size:
            return
        note = self._evidence.key.sign(frontier.size, frontier.root())
        row = (frontier.size, note, microseconds(self._clock_now()))
        self._small(
            lambda connection: connection.execute(
                "INSERT INTO checkpoint(size, note, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row
            )
        )
        try:
            write_durably(self._head_path, note)
        except OSError as problem:
            raise StoreError(f"{self._head_path} cannot be written: {problem}", code="store.unwritable") from problem
        self._signed_size = frontier.size
        self._sign_at = time.monotonic() + CHECKPOINT_EVERY_S

    def prune(self) -> bool:
        """Remove a small batch of what is too old; True when there is more.

        Raises:
            StoreError: not committed.
        """
        before = microseconds(self._clock_now() - KEEP)
        counts: list[int] = []

        def act(connection: sqlite3.Connection) -> None:
            counts.extend(connection.execute(query, (before, PRUNE_ROWS)).rowcount for query in _PRUNE.values())

        self._small(act)
        return max(counts) >= PRUNE_ROWS

    def _small(self, act: Callable[[sqlite3.Connection], object]) -> None:
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            act(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as problem:
            self._abandon()
            raise _not_committed(problem) from problem

    def finish(self) -> None:
        """Sign a last head and close."""
        try:
            self.sign()
        except StoreError as problem:
            log.error("last head not signed: %s", problem)  # noqa: TRY400  closing goes on
        self.close()

    def close(self) -> None:
        """Close without signing anything."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA optimize")
            connection.close()


def _head(frontier: Frontier) -> LogHead:
    return LogHead(frontier.size, frontier.root().hex())


def _refused(problem: Exception) -> StoreError:
    if isinstance(problem, StoreError):
        return problem
    error = StoreError(f"unit refused: {type(problem).__name__}: {problem}", code="store.refused")
    error.__cause__ = problem
    return error


def _not_committed(problem: Exception) -> StoreError:
    if isinstance(problem, StoreError):
        return problem
    return StoreError(f"not committed: {problem}", code="store.not-committed")
