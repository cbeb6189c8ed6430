"""The telemetry file: samples in batches, ``synchronous=NORMAL``, a writer of its own."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from gateway.domain.errors import StoreError
from gateway.domain.ids import SiteId
from gateway.domain.measurement import Measurement
from gateway.domain.timeline import unix_ms
from gateway.infra.store_sql import schema
from gateway.infra.store_sql.connection import Connect
from gateway.infra.store_sql.queue import Job

log = logging.getLogger("gridgate.store")

SCHEMA_VERSION = 1
"""``PRAGMA user_version`` of the telemetry file."""

LINGER_S = 0.025
"""How long the first sample of a batch waits for others; with the commit well below 50 ms."""

Batch: TypeAlias = tuple[SiteId, Sequence[Measurement]]
_Key: TypeAlias = tuple[str, str, str, str]

_SAMPLE = (
    "INSERT INTO sample(series_id, ts_ms, value, quality, received_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
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
        connection.executemany(
            _SAMPLE,
            [
                (
                    self._series_id(connection, (site, m.node, m.quantity.value, m.source)),
                    unix_ms(m.measured_at),
                    m.value,
                    m.quality.value,
                    unix_ms(m.received_at),
                )
                for site, samples in batches
                for m in samples
            ],
        )
        connection.execute("COMMIT")

    def _series_id(self, connection: sqlite3.Connection, key: _Key) -> int:
        known = self._series.get(key)
        if known is None:
            connection.execute(
                "INSERT INTO series(site, node, quantity, source) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", key
            )
            query = "SELECT id FROM series WHERE site = ? AND node = ? AND quantity = ? AND source = ?"
            (known,) = connection.execute(query, key).fetchone()
            self._series[key] = known
        return known

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
    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateTable

    connection.execute("BEGIN IMMEDIATE")
    for table in schema.telemetry.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
