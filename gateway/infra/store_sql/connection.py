"""Connections to the SQLite files, with the settings that durability rests on read back.

SQLite before 3.51.3 can corrupt a WAL file when several connections write or checkpoint. Here one
connection per file writes; every other one is read-only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from gateway.domain.errors import StoreError

OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""

BUSY_MS = 5_000
"""How long a writer waits for a reader that is about to finish a checkpoint."""

AUTOCHECKPOINT_PAGES = 4_000
"""16 MB of write-ahead log: rare checkpoints, and a reopening that is still instant."""

_STATEMENTS = 256

Connect: TypeAlias = Callable[[Path], sqlite3.Connection]
"""Opens the writer's connection; tests hand in failing ones."""


def connect_writer(path: Path) -> sqlite3.Connection:
    """The connection of the one writer: WAL, FULL, foreign keys; transactions are explicit.

    Raises:
        StoreError: the file cannot be opened, or a setting did not hold.
    """
    return _connect(path, "FULL", 2)


def connect_telemetry(path: Path) -> sqlite3.Connection:
    """As :func:`connect_writer` with ``synchronous=NORMAL``."""
    return _connect(path, "NORMAL", 1)


def connect_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection, usable beside a running writer and from several threads in turn.

    Raises:
        StoreError: there is no such file, or it is no database.
    """
    uri = path.absolute().as_uri() + "?mode=ro"
    try:
        connection = _open_uri(uri)
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            # A folder without write permission has no place for the shared memory of a WAL file;
            # with no WAL beside it nobody is writing, and the file may be read as it is.
            if path.with_name(path.name + "-wal").exists():
                raise
            connection = _open_uri(uri + "&immutable=1")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.Error as problem:
        raise StoreError(f"{path} cannot be read: {problem}", code="store.unreadable") from problem
    return connection


def create_private(path: Path) -> None:
    """Create ``path`` with mode 0600 if there is none; SQLite's side files inherit the mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as problem:
        raise StoreError(f"{path} cannot be created: {problem}", code="store.unwritable") from problem


def _open_uri(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1_000)


def _connect(path: Path, synchronous: str, expected: int) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old", hint="3.37 or newer is needed")
    create_private(path)
    try:
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_MS / 1_000,
            cached_statements=_STATEMENTS,
        )
        prepare_writer(connection, synchronous, expected)
    except sqlite3.Error as problem:
        raise StoreError(f"{path} cannot be opened: {problem}", code="store.unwritable") from problem
    return connection


def prepare_writer(connection: sqlite3.Connection, synchronous: str = "FULL", expected: int = 2) -> None:
    """Set what durability rests on and read it back.

    Raises:
        StoreError: a setting did not hold (a file system without shared memory, for example).
    """
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA wal_autocheckpoint={AUTOCHECKPOINT_PAGES}")
    connection.execute("PRAGMA mmap_size=0")
    (level,) = connection.execute("PRAGMA synchronous").fetchone()
    if mode != "wal" or level != expected:
        connection.close()
        raise StoreError(
            f"journal_mode={mode}, synchronous={level}: durability cannot be had here",
            code="store.not-durable",
            hint="put the store on a local file system",
        )
