"""The SQLite store: implements ``gateway.ports.store.Store``. Opening order, then thin hand-overs."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.domain.errors import EvidenceError, StoreError
from gateway.domain.evidence import EvidenceDraft, Json
from gateway.domain.ids import EvidenceId, PeerId, SiteId, derive
from gateway.domain.measurement import Measurement
from gateway.infra.evidence_key import create_key, load_key, read_head
from gateway.infra.store_sql.connection import Connect, connect_reader, connect_telemetry, connect_writer
from gateway.infra.store_sql.lock import StoreLock
from gateway.infra.store_sql.log import EvidenceLog
from gateway.infra.store_sql.main_file import Act, MainFile
from gateway.infra.store_sql.migrate import upgrade
from gateway.infra.store_sql.queue import GroupThread
from gateway.infra.store_sql.samples import Batch, SampleFile, telemetry_path
from gateway.infra.store_sql.unit import apply_unit, take_over
from gateway.ports.store import CommitUnit, InboxHit, Loaded, LogHead

LAZY_S = 1.0
"""How long a lazy unit may wait for company."""

LOG_EPOCH = 1
"""The log's own epoch, last part of its origin; a suspected fork begins the next."""

LOG_SITE = SiteId("")
"""Under which the log's entries about itself are numbered."""


@dataclass(frozen=True, slots=True)
class _Files:
    path: Path
    head: Path
    key: Path


class SqliteStore:
    """Everything durable of one gateway. Made by :func:`open_store`."""

    def __init__(self, path: Path, main: MainFile, samples: SampleFile, lock: StoreLock) -> None:
        self._main = main
        self._lock = lock
        self._reader = connect_reader(path)
        self._reading = threading.Lock()
        self._closed = False
        self._units: GroupThread[Act, Any] = GroupThread("gridgate-store", main, LAZY_S)
        self._samples: GroupThread[Batch, None] = GroupThread("gridgate-telemetry", samples, 0)

    def open_site(self, site: SiteId) -> Loaded:
        """Load a site and take it over with a new epoch (blocking; at start only).

        Raises:
            StoreError: not committed.
        """
        loaded: Loaded = self._units.submit(lambda connection, _log: take_over(connection, site)).result()
        return loaded

    def commit(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]:
        """Queue a unit; the future resolves after the FULL commit, else fails with ``StoreError``."""
        return self._units.submit(lambda connection, log: apply_unit(connection, log, unit), lazy=unit.lazy)

    def record_samples(self, site: SiteId, samples: Sequence[Measurement]) -> Future[None]:
        """Queue telemetry rows; resolves after their commit. The caller gathers: each call is written at once."""
        return self._samples.submit((site, samples))

    def inbox(self, peer: PeerId, endpoint: str, message_id: str) -> InboxHit | None:
        """A committed message under this key.

        Raises:
            StoreError: the file cannot be read.
        """
        query = "SELECT sha256, answer FROM inbox WHERE peer = ? AND endpoint = ? AND message_id = ?"
        with self._reading:
            try:
                row = self._reader.execute(query, (peer, endpoint, message_id)).fetchone()
            except sqlite3.Error as problem:
                raise StoreError(f"inbox cannot be read: {problem}", code="store.unreadable") from problem
        return None if row is None else InboxHit(row[0], row[1])

    def head(self) -> LogHead:
        """The committed head of the log."""
        return self._main.head

    def close(self) -> None:
        """Finish what is queued, sign a last checkpoint, close. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._samples.close()
        with self._reading:
            # Before the writer: the last connection to close folds the WAL into the file.
            self._reader.close()
        self._units.close()
        self._lock.release()


def open_store(
    path: Path,
    *,
    head_path: Path,
    key_path: Path,
    origin: str,
    clock_now: Callable[[], datetime],
    auto_migrate: bool = True,
    connect: Connect = connect_writer,
) -> SqliteStore:
    """Open or create a store: lock, upgrade, key, evidence tail, fork check, ``log.start|resume``.

    Args:
        path: the database; samples lie beside it in ``<name>-telemetry.db``.
        head_path: the last signed head, better on another volume.
        key_path: the log's Ed25519 key, created at the first opening.
        origin: ``<operator domain>/gridgate/<site>``; the log's epoch is added.
        auto_migrate: False refuses an older schema.
        connect: opens the writer's connection.

    Raises:
        StoreError: in use, not writable, or a schema that does not fit.
        EvidenceError: the log does not verify, or ``store.fork-suspected``.
    """
    files = _Files(Path(path), Path(head_path), Path(key_path))
    with ExitStack() as undo:
        lock = StoreLock(files.path)
        undo.callback(lock.release)
        upgrade(files.path, auto=auto_migrate)
        main = _open_log(files, f"{origin}/{LOG_EPOCH}", clock_now, connect)
        undo.callback(main.finish)
        store = SqliteStore(files.path, main, SampleFile(telemetry_path(files.path), connect_telemetry), lock)
        undo.pop_all()
    return store


def _open_log(files: _Files, origin: str, clock_now: Callable[[], datetime], connect: Connect) -> MainFile:
    """The main file with its log checked against the head outside and its first entry written."""
    is_new = _is_new(files)
    if is_new:
        create_key(files.key)
    key = load_key(files.key, origin)
    evidence = EvidenceLog(key, clock_now)
    main = MainFile(files.path, evidence, head_path=files.head, connect=connect, clock_now=clock_now)
    try:
        if not is_new:
            _check_identity(main.connection, str(key.verifier))
            evidence.check_tail(main.connection)
        evidence.check_fork(main.connection, read_head(files.head, key.verifier))
        main.run(_first_entry(clock_now(), main.head, str(key.verifier), is_new=is_new))
        main.sign()
    except StoreError:
        main.close()
        raise
    return main


def _is_new(files: _Files) -> bool:
    """Whether no log was ever begun: neither here nor, by the head outside, anywhere."""
    reader = connect_reader(files.path)
    try:
        row = reader.execute("SELECT 1 FROM head").fetchone()
    finally:
        reader.close()
    if row is None and files.head.exists():
        raise EvidenceError(
            f"{files.path} holds no log, but {files.head} says that one was signed",
            code="store.fork-suspected",
            hint="bring back the newest database; for a new log choose other file names",
        )
    return row is None


def _check_identity(connection: sqlite3.Connection, vkey: str) -> None:
    (stored,) = connection.execute("SELECT vkey FROM head WHERE one = 1").fetchone()
    if stored != vkey:
        raise EvidenceError(
            f"this log is signed by {stored}, the configuration gives {vkey}",
            code="store.key-mismatch",
            hint="site, operator domain and key file of a log do not change",
        )


def _first_entry(now: datetime, head: LogHead, vkey: str, *, is_new: bool) -> Act:
    """``log.start`` in a new log, else ``log.resume`` with the head that was found."""
    body: dict[str, Json] = {"vkey": vkey} if is_new else {"size": head.size, "root": head.root}
    draft = EvidenceDraft(
        id=EvidenceId(derive("evd", now, vkey, head.size, head.root)),
        type="log.start" if is_new else "log.resume",
        at=now,
        body=body,
    )

    def act(connection: sqlite3.Connection, log: EvidenceLog) -> EvidenceId:
        if is_new:
            connection.execute(
                "INSERT INTO head(one, size, frontier, root, log_epoch, vkey) VALUES (1, 0, x'', x'', ?, ?)",
                (LOG_EPOCH, vkey),
            )
        (entry,) = log.append(connection, LOG_SITE, [draft])
        return entry

    return act
