"""Questions to a store on disk, with or without a running gateway beside it. Read-only."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from gateway.domain.errors import StoreError
from gateway.domain.evidence import Json
from gateway.domain.ids import EvidenceId, NodeId
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.merkle import inclusion_proof
from gateway.domain.timeline import EPOCH, from_unix_ms, unix_ms
from gateway.infra.evidence_tree import stored_nodes
from gateway.infra.store_sql.connection import connect_reader
from gateway.infra.store_sql.samples import telemetry_path

MAX_ROWS = 10_000
"""Rows of one answer; more are asked for page by page."""

_SELECT = "SELECT e.idx, e.id, e.at, e.site, e.type, e.data FROM "
_NEWEST = 2**62
"""Greater than every index: where paging begins."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry. ``data`` are its sealed bytes, ``document`` what they say."""

    idx: int
    id: EvidenceId
    at: datetime
    site: str
    type: str
    data: bytes
    document: Mapping[str, Any]

    @property
    def subject(self) -> Mapping[str, str]:
        """What it is about."""
        return dict(self.document.get("subject", {}))

    @property
    def cause(self) -> tuple[EvidenceId, ...]:
        """The earlier entries that led to it."""
        return tuple(EvidenceId(c) for c in self.document.get("cause", ()))

    @property
    def body(self) -> Mapping[str, Json]:
        """The values that mattered."""
        return dict(self.document.get("body", {}))


@dataclass(frozen=True, slots=True)
class StoredRaw:
    """A message or document kept under its digest."""

    sha256: str
    media: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One measured value, in the unit of its quantity."""

    at: datetime
    value: int
    quality: Quality
    received_at: datetime
    source: str


@dataclass(frozen=True, slots=True)
class Series:
    """One stream of samples."""

    site: str
    node: NodeId
    quantity: str
    source: str


@dataclass(frozen=True, slots=True)
class StoredHead:
    """Where the log stands and what of it is signed. ``root`` is hex."""

    size: int
    root: str
    vkey: str
    signed_size: int
    signed_at: datetime | None


class EvidenceReader:
    """A read-only connection; a context manager.

    Raises:
        StoreError: no such store; from every method: it cannot be read.
    """

    def __init__(self, db_path: Path) -> None:
        self._path = Path(db_path)
        self._db = connect_reader(self._path)
        self._samples: sqlite3.Connection | None = None

    def __enter__(self) -> EvidenceReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._db.close()
        if self._samples is not None:
            self._samples.close()

    # --- entries ----------------------------------------------------------------------------

    def by_id(self, id_: str) -> StoredEntry | None:
        """The entry with this id."""
        found = self._entries(_SELECT + "entry e WHERE e.id = ?", (id_,))
        return found[0] if found else None

    def by_subject(
        self, kind: str, value: str, *, type: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[StoredEntry]:
        """Entries about ``value``, newest first; ``before`` is the index to page on from."""
        query = (
            _SELECT + "entry_subject s JOIN entry e ON e.idx = s.idx "
            "WHERE s.kind = ? AND s.value = ? AND s.idx < ? AND e.type = coalesce(?, e.type) "
            "ORDER BY s.idx DESC LIMIT ?"
        )
        return self._entries(query, (kind, value, _before(before), type, _bounded(limit)))

    def by_any_subject(self, value: str, *, before: int | None = None, limit: int = 100) -> list[StoredEntry]:
        """Entries that name ``value`` as a subject of whatever kind, newest first."""
        query = (
            "SELECT e.idx, e.id, e.at, e.site, e.type, e.data FROM entry e WHERE e.idx < ? AND e.idx IN "
            "(SELECT s.idx FROM (SELECT DISTINCT kind FROM entry_subject) k "
            "JOIN entry_subject s ON s.kind = k.kind AND s.value = ?) ORDER BY e.idx DESC LIMIT ?"
        )
        return self._entries(query, (_before(before), value, _bounded(limit)))

    def by_type(self, type_: str, *, before: int | None = None, limit: int = 100) -> list[StoredEntry]:
        """Entries of one type, newest first."""
        query = _SELECT + "entry e WHERE e.type = ? AND e.idx < ? ORDER BY e.idx DESC LIMIT ?"
        return self._entries(query, (type_, _before(before), _bounded(limit)))

    def newest(self, *, before: int | None = None, limit: int = 100) -> list[StoredEntry]:
        """Entries, newest first."""
        query = _SELECT + "entry e WHERE e.idx < ? ORDER BY e.idx DESC LIMIT ?"
        return self._entries(query, (_before(before), _bounded(limit)))

    def causes(self, id_: str) -> list[StoredEntry]:
        """The entries that this one cites, oldest first."""
        query = (
            _SELECT + "entry mine JOIN entry_cause c ON c.idx = mine.idx "
            "JOIN entry e ON e.id = c.cause WHERE mine.id = ? ORDER BY e.idx"
        )
        return self._entries(query, (id_,))

    def effects(self, id_: str, *, limit: int = 1_000) -> list[StoredEntry]:
        """The entries that cite this one, oldest first."""
        query = _SELECT + "entry_cause c JOIN entry e ON e.idx = c.idx WHERE c.cause = ? ORDER BY e.idx LIMIT ?"
        return self._entries(query, (id_, _bounded(limit)))

    def tail(self, n: int) -> list[StoredEntry]:
        """The newest ``n`` entries, oldest first."""
        query = _SELECT + "entry e ORDER BY e.idx DESC LIMIT ?"
        return list(reversed(self._entries(query, (_bounded(n),))))

    def _entries(self, query: str, values: Sequence[object]) -> list[StoredEntry]:
        with _mapped(self._path):
            return [_entry(row) for row in self._db.execute(query, tuple(values))]

    # --- head and proofs --------------------------------------------------------------------

    def head(self) -> StoredHead:
        """Where the log stands."""
        with _mapped(self._path):
            row = self._db.execute("SELECT size, root, vkey FROM head").fetchone()
            signed = self._db.execute("SELECT size, created FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        size, root, vkey = row if row is not None else (0, b"", "")
        if signed is None:
            return StoredHead(size, root.hex(), vkey, 0, None)
        return StoredHead(size, root.hex(), vkey, signed[0], _instant(signed[1]))

    def checkpoint(self) -> bytes | None:
        """The newest signed head as bytes of a note."""
        with _mapped(self._path):
            row = self._db.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        return None if row is None else bytes(row[0])

    def proof(self, id_: str) -> bytes | None:
        """A C2SP tlog-proof that the newest checkpoint covers this entry; None when it does not."""
        with _mapped(self._path):
            row = self._db.execute("SELECT idx FROM entry WHERE id = ?", (id_,)).fetchone()
            signed = self._db.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
            if row is None or signed is None or row[0] >= signed[0]:
                return None
            path = inclusion_proof(row[0], signed[0], stored_nodes(self._db))
        hashes = "".join(f"{base64.b64encode(h).decode()}\n" for h in path)
        return f"c2sp.org/tlog-proof@v1\nindex {row[0]}\n{hashes}\n".encode() + bytes(signed[1])

    # --- beside the log ---------------------------------------------------------------------

    def raw(self, sha256: str) -> StoredRaw | None:
        """A message as it came, or a document, by its digest."""
        with _mapped(self._path):
            row = self._db.execute("SELECT sha256, media, data FROM raw WHERE sha256 = ?", (sha256,)).fetchone()
        return None if row is None else StoredRaw(*row)

    def outbox_depth(self) -> dict[str, int]:
        """Facts owed, by peer."""
        with _mapped(self._path):
            return dict(self._db.execute("SELECT peer, count(*) FROM outbox WHERE status = 'ready' GROUP BY peer"))

    def samples(self, node: str, quantity: Quantity, start: datetime, end: datetime) -> list[StoredSample]:
        """Values measured in ``[start, end)``, in order; the first 10,000."""
        query = (
            "SELECT p.ts_ms, p.value, p.quality, p.received_ms, s.source FROM series s "
            "JOIN sample p ON p.series_id = s.id WHERE s.node = ? AND s.quantity = ? AND p.ts_ms >= ? AND p.ts_ms < ? "
            "ORDER BY p.ts_ms, s.id LIMIT ?"
        )
        with _mapped(self._path):
            rows = self._telemetry().execute(query, (node, quantity.value, unix_ms(start), unix_ms(end), MAX_ROWS))
            return [
                StoredSample(from_unix_ms(at), value, Quality(quality), from_unix_ms(received), source)
                for at, value, quality, received, source in rows
            ]

    def series(self) -> list[Series]:
        """Every stream there is."""
        query = "SELECT site, node, quantity, source FROM series ORDER BY site, node, quantity, source"
        with _mapped(self._path):
            rows = self._telemetry().execute(query).fetchall()
        return [Series(site, NodeId(node), quantity, source) for site, node, quantity, source in rows]

    def _telemetry(self) -> sqlite3.Connection:
        if self._samples is None:
            self._samples = connect_reader(telemetry_path(self._path))
        return self._samples


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Turns the driver's errors into ours."""
    try:
        yield
    except (sqlite3.Error, LookupError, ValueError) as problem:
        raise StoreError(f"{path} cannot be read: {problem}", code="store.unreadable") from problem


def _entry(row: tuple[int, str, int, str, str, bytes]) -> StoredEntry:
    idx, id_, at, site, type_, data = row
    return StoredEntry(idx, EvidenceId(id_), _instant(at), site, type_, data, json.loads(data))


def _instant(value: int) -> datetime:
    return EPOCH + timedelta(microseconds=value)


def _bounded(limit: int) -> int:
    return max(0, min(limit, MAX_ROWS))


def _before(index: int | None) -> int:
    return _NEWEST if index is None else index
