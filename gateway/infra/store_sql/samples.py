"""The telemetry file: samples in batches, ``synchronous=NORMAL``, a writer of its own."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gateway.domain.errors import StoreError
from gateway.domain.ids import SiteId
from gateway.domain.measurement import Measurement
from gateway.domain.timeline import EPOCH, unix_ms
from gateway.infra.store_sql import schema
from gateway.infra.store_sql.connection import Connect
from gateway.infra.store_sql.queue import Job

if TYPE_CHECKING:
    from sqlalchemy import Table

log = logging.getLogger("gridgate.store")

SCHEMA_VERSION = 2
"""``PRAGMA user_version`` of the telemetry file."""

Batch: TypeAlias = tuple[SiteId, Sequence[Measurement]]
_Key: TypeAlias = tuple[str, str, str, str]
_Row: TypeAlias = tuple[int, int, int, str, int]

ROWS_AT_ONCE = 64
"""Rows of one statement: each statement's step gives the interpreter's lock away and has to wait for it again."""

_ROW = "(?, ?, ?, ?, ?)"
_INSERT = "INSERT INTO sample(series_id, ts_ms, value, quality, received_ms) VALUES "
_ONCE = " ON CONFLICT DO NOTHING"
_SAMPLE = _INSERT + _ROW + _ONCE
_SAMPLES = _INSERT + ", ".join([_ROW] * ROWS_AT_ONCE) + _ONCE
_FROM_VERSION_1 = (
    "INSERT INTO sample(ts_ms, series_id, value, quality, received_ms) "
    "SELECT ts_ms, series_id, value, quality, received_ms FROM sample_1 ORDER BY ts_ms, series_id"
)


def telemetry_path(path: Path) -> Path:
    """Where the samples of a store lie: ``gridgate.db`` has ``gridgate-telemetry.db``."""
    return path.with_name(f"{path.stem}-telemetry{path.suffix}")


class SampleFile:
    """Writes samples; the first value for an instant stays, a repetition changes nothing."""

    def __init__(self, path: Path, connect: Connect) -> None:
        self._path = path
        self._connect = connect
        self._series: dict[_Key, int] = {}
        self._connection: sqlite3.Connection | None = connect(path)
        _create(self._connection, path)

    def handle(self, jobs: Sequence[Job[Batch, None]]) -> None:
        """Commit a group and tell everybody."""
        try:
            self._commit([job.payload for job in jobs])
        except (sqlite3.Error, StoreError, ValueError, TypeError, OverflowError) as problem:
            self._abandon()
            for job in jobs:
                job.future.set_exception(StoreError(f"samples not stored: {problem}", code="store.not-committed"))
            return
        for job in jobs:
            job.future.set_result(None)

    def chore_in(self, now: float) -> float | None:
        """Nothing to do between groups."""
        return None

    def chore(self, now: float) -> None:
        """Nothing to do between groups."""

    def finish(self) -> None:
        """Close."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _commit(self, batches: Sequence[Batch]) -> None:
        if self._connection is None:
            self._connection = self._connect(self._path)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        rows = [row for site, samples in batches for row in self._rows(connection, site, samples)]
        single = len(rows) % ROWS_AT_ONCE
        connection.executemany(_SAMPLE, rows[:single])
        for start in range(single, len(rows), ROWS_AT_ONCE):
            connection.execute(_SAMPLES, list(chain.from_iterable(rows[start : start + ROWS_AT_ONCE])))
        connection.execute("COMMIT")

    def _rows(self, connection: sqlite3.Connection, site: SiteId, samples: Sequence[Measurement]) -> Iterator[_Row]:
        """Rows of samples. Those of one message share their instants, which are converted once."""
        measured = received = EPOCH
        measured_ms = received_ms = 0
        for m in samples:
            if m.measured_at is not measured:
                measured, measured_ms = m.measured_at, unix_ms(m.measured_at)
            if m.received_at is not received:
                received, received_ms = m.received_at, unix_ms(m.received_at)
            key = (site, m.node, m.quantity.value, m.source)
            series = self._series.get(key) or self._series_id(connection, key)
            yield series, measured_ms, m.value, m.quality.value, received_ms

    def _series_id(self, connection: sqlite3.Connection, key: _Key) -> int:
        connection.execute(
            "INSERT INTO series(site, node, quantity, source) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", key
        )
        query = "SELECT id FROM series WHERE site = ? AND node = ? AND quantity = ? AND source = ?"
        (known,) = connection.execute(query, key).fetchone()
        self._series[key] = known
        return int(known)

    def _abandon(self) -> None:
        log.error("telemetry not writable; reopening")
        # Numbers of series that this transaction made are gone with it.
        self._series.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _create(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path} has telemetry schema {version}", code="store.newer-schema")
    if version == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    if version == 0:
        _create_tables(connection, *schema.telemetry.sorted_tables)
    else:
        # Version 1 had the series first in the key of its samples.
        connection.execute("ALTER TABLE sample RENAME TO sample_1")
        _create_tables(connection, schema.sample)
        connection.execute(_FROM_VERSION_1)
        connection.execute("DROP TABLE sample_1")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _create_tables(connection: sqlite3.Connection, *tables: Table) -> None:
    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateTable

    for table in tables:
        connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
