"""The growing end of the evidence log: appends entries inside the caller's transaction.

The frontier in memory is the uncommitted one; the writer restores it when it rolls back.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from gateway.domain.errors import EvidenceError
from gateway.domain.evidence import EvidenceDraft
from gateway.domain.ids import EvidenceId
from gateway.domain.merkle import Frontier, leaf_hash, root_at
from gateway.domain.note import Checkpoint
from gateway.domain.timeline import EPOCH
from gateway.infra.evidence_key import LogKey
from gateway.infra.evidence_tree import TILE_HEIGHT, TILE_WIDTH, fold, row_hashes, stored_nodes
from gateway.infra.store_sql.entry import Moment, Place, encode_entry

SITE = "site"
PARTY = "party"

_TAIL = TILE_WIDTH
"""Entries whose bytes are hashed again at every opening; `evidence verify` takes all of them."""

_COUNTER = "SELECT value FROM counter WHERE kind = ? AND name = ?"
_COUNT = "INSERT INTO counter(kind, name, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_ENTRY = "INSERT INTO entry(idx, id, dedup, at, site, type, data, leaf) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SUBJECT = "INSERT INTO entry_subject(idx, kind, value) VALUES (?, ?, ?)"
_CAUSE = "INSERT INTO entry_cause(idx, cause) VALUES (?, ?)"
_HEAD = "UPDATE head SET size = ?, frontier = ?, root = ? WHERE one = 1"


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970, exact."""
    delta = instant - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def boot_token() -> str:
    """The same for every process between two starts of the machine, and useless for anything else."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return secrets.token_hex(16)
    return hashlib.sha256(b"gridgate boot\n" + boot).hexdigest()[:32]


class _Unit:
    """The rows of one unit's entries, written together: a statement for each would cost more than its row."""

    def __init__(self, connection: sqlite3.Connection, site: str) -> None:
        self._connection = connection
        self._site = site
        self._counters: dict[tuple[str, str], int] = {}
        self._dedup: dict[bytes, EvidenceId] = {}
        self._entries: list[tuple[object, ...]] = []
        self._subjects: list[tuple[int, str, str]] = []
        self._causes: list[tuple[int, str]] = []

    def find(self, dedup: bytes) -> EvidenceId | None:
        """The entry under this key, committed before or waiting here."""
        if dedup in self._dedup:
            return self._dedup[dedup]
        row = self._connection.execute("SELECT id FROM entry WHERE dedup = ?", (dedup,)).fetchone()
        return None if row is None else EvidenceId(row[0])

    def place(self, draft: EvidenceDraft) -> Place:
        """The next numbers of the site and of the party that the entry concerns."""
        party = draft.subject.get("peer")
        return Place(self._site, self._next(SITE, self._site), self._next(PARTY, party) if party else None)

    def add(
        self, index: int, draft: EvidenceDraft, dedup: bytes, cause: Sequence[str], data: bytes, leaf: bytes
    ) -> None:
        """Take an entry."""
        self._dedup[dedup] = draft.id
        self._entries.append((index, draft.id, dedup, microseconds(draft.at), self._site, draft.type, data, leaf))
        self._subjects += [(index, kind, value) for kind, value in draft.subject.items()]
        self._causes += [(index, c) for c in cause]

    def flush(self) -> None:
        """Write the entries taken since the last time."""
        self._connection.executemany(_ENTRY, self._entries)
        self._connection.executemany(_SUBJECT, self._subjects)
        self._connection.executemany(_CAUSE, self._causes)
        for rows in (self._entries, self._subjects, self._causes):
            rows.clear()

    def store_counters(self) -> None:
        """Write how far the numbers have come."""
        self._connection.executemany(_COUNT, [(kind, name, value) for (kind, name), value in self._counters.items()])

    def _next(self, kind: str, name: str) -> int:
        value = self._counters.get((kind, name))
        if value is None:
            row = self._connection.execute(_COUNTER, (kind, name)).fetchone()
            value = 0 if row is None else int(row[0])
        self._counters[kind, name] = value + 1
        return value + 1


class EvidenceLog:
    """Appends to one log. Not thread-safe: it belongs to the writer."""

    def __init__(self, key: LogKey, clock_now: Callable[[], datetime]) -> None:
        self.key = key
        self.frontier = Frontier()
        self._clock_now = clock_now
        self._boot = boot_token()

    def load(self, connection: sqlite3.Connection) -> None:
        """Take the frontier from the database.

        Raises:
            EvidenceError: the stored frontier is damaged.
        """
        row = connection.execute("SELECT size, frontier, root FROM head WHERE one = 1").fetchone()
        if row is None:
            self.frontier = Frontier()
            return
        size, data, root = row
        try:
            frontier = Frontier.from_bytes(size, data)
        except ValueError as problem:
            raise EvidenceError(f"the stored head is damaged: {problem}") from problem
        if frontier.root() != root:
            raise EvidenceError(f"the stored head of {size} entries contradicts itself")
        self.frontier = frontier

    def begin_unit(self) -> Frontier:
        """Start a unit; the result goes to :meth:`restore` if it fails."""
        return self.frontier

    def restore(self, frontier: Frontier) -> None:
        """Forget what was appended since."""
        self.frontier = frontier

    def append(self, connection: sqlite3.Connection, site: str, drafts: Sequence[EvidenceDraft]) -> list[EvidenceId]:
        """Append entries in order; a draft whose ``dedup`` key is known gives the earlier entry's id.

        Raises:
            StoreError: an entry is too large.
        """
        unit = _Unit(connection, site)
        moment = Moment(self._clock_now(), self._boot, time.monotonic_ns())
        same: dict[EvidenceId, EvidenceId] = {}
        ids = []
        for draft in drafts:
            dedup = hashlib.sha256(f"{site}\x1f{draft.type}\x1f{draft.dedup or draft.id}".encode()).digest()
            known = unit.find(dedup) if draft.dedup else None
            if known is not None:
                same[draft.id] = known
                ids.append(known)
                continue
            # Later entries of the unit may cite a draft that turned out to be in the log already.
            cause = tuple(dict.fromkeys(same.get(c, c) for c in draft.cause))
            data = encode_entry(draft, cause, unit.place(draft), moment)
            leaf = leaf_hash(data)
            unit.add(self.frontier.size, draft, dedup, cause, data, leaf)
            self.frontier = self.frontier.append(leaf)
            if self.frontier.size % TILE_WIDTH == 0:
                unit.flush()
                self._store_nodes(connection)
            ids.append(draft.id)
        unit.flush()
        unit.store_counters()
        return ids

    def store_head(self, connection: sqlite3.Connection) -> None:
        """Write the frontier; once per transaction."""
        frontier = self.frontier
        connection.execute(_HEAD, (frontier.size, frontier.to_bytes(), frontier.root()))

    def check_tail(self, connection: sqlite3.Connection) -> None:
        """Compare the newest entries, the stored tree and the frontier with each other.

        Raises:
            EvidenceError: they differ.
        """
        size = self.frontier.size
        rows = connection.execute(
            "SELECT idx, data, leaf FROM entry WHERE idx >= ? ORDER BY idx", (max(0, size - _TAIL),)
        ).fetchall()
        for index, data, leaf in rows:
            if leaf_hash(data) != leaf:
                raise EvidenceError(f"entry {index} was changed", code="store.evidence-damaged")
        if len(rows) != min(size, _TAIL) or (rows and rows[-1][0] != size - 1):
            raise EvidenceError(f"the newest entries are not those of a log of {size}", code="store.evidence-damaged")
        if self._root_at(connection, size) != self.frontier.root():
            raise EvidenceError(
                f"the stored tree of {size} entries contradicts the head", code="store.evidence-damaged"
            )

    def check_fork(self, connection: sqlite3.Connection, signed: Checkpoint | None) -> None:
        """Compare the log with the head that was signed last.

        Raises:
            EvidenceError: ``store.fork-suspected``: the log is shorter, or another one.
        """
        if signed is None:
            (count,) = connection.execute("SELECT count(*) FROM checkpoint").fetchone()
            if count > 1:  # with one, a crash may have come before the file was first written
                raise _fork("the file with the last signed head is missing")
            return
        size = self.frontier.size
        if size < signed.size:
            raise _fork(f"the log has {size} entries, but {signed.size} were signed")
        if self._root_at(connection, signed.size) != signed.root:
            raise _fork(f"the first {signed.size} entries are not those that were signed")

    def _root_at(self, connection: sqlite3.Connection, size: int) -> bytes | None:
        try:
            return root_at(size, stored_nodes(connection))
        except LookupError:
            return None

    def _store_nodes(self, connection: sqlite3.Connection) -> None:
        """Store the hash of every subtree of 256, 65,536, ... leaves that has just become complete."""
        count, row = self.frontier.size, 0
        while count % TILE_WIDTH == 0:
            count //= TILE_WIDTH
            hashes = row_hashes(connection, row, (count - 1) * TILE_WIDTH, TILE_WIDTH)
            row += 1
            connection.execute(
                "INSERT INTO node(level, pos, hash) VALUES (?, ?, ?)", (row * TILE_HEIGHT, count - 1, fold(hashes))
            )


def _fork(what: str) -> EvidenceError:
    return EvidenceError(
        what,
        code="store.fork-suspected",
        hint="an old backup, or another log: bring back the newest database, or keep both and ask an auditor",
    )
