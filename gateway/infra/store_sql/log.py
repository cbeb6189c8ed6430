"""The growing end of the evidence log: appends entries inside the caller's transaction.

The frontier in memory is the uncommitted one; the writer restores it when it rolls back.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable
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

_COUNT = (
    "INSERT INTO counter(kind, name, value) VALUES (?, ?, 1) "
    "ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value"
)
_ENTRY = "INSERT INTO entry(idx, id, dedup, at, site, type, data, leaf) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
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


class EvidenceLog:
    """Appends to one log. Not thread-safe: it belongs to the writer."""

    def __init__(self, key: LogKey, clock_now: Callable[[], datetime]) -> None:
        self.key = key
        self.frontier = Frontier()
        self._clock_now = clock_now
        self._boot = boot_token()
        self._same: dict[EvidenceId, EvidenceId] = {}

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
        self._same.clear()
        return self.frontier

    def restore(self, frontier: Frontier) -> None:
        """Forget what was appended since."""
        self.frontier = frontier

    def append(self, connection: sqlite3.Connection, site: str, draft: EvidenceDraft) -> EvidenceId:
        """Append an entry; a draft whose ``dedup`` key is known gives the earlier entry's id.

        Raises:
            StoreError: the entry is too large.
        """
        dedup = hashlib.sha256(f"{site}\x1f{draft.type}\x1f{draft.dedup or draft.id}".encode()).digest()
        if draft.dedup:
            known = connection.execute("SELECT id FROM entry WHERE dedup = ?", (dedup,)).fetchone()
            if known is not None:
                self._same[draft.id] = EvidenceId(known[0])
                return EvidenceId(known[0])
        # Later entries of the unit may cite a draft that turned out to be in the log already.
        cause = tuple(dict.fromkeys(self._same.get(c, c) for c in draft.cause))
        party = draft.subject.get("peer")
        pseq = self._count(connection, PARTY, party) if party else None
        place = Place(site, self._count(connection, SITE, site), pseq)
        data = encode_entry(draft, cause, place, Moment(self._clock_now(), self._boot, time.monotonic_ns()))
        leaf = leaf_hash(data)
        index = self.frontier.size
        at = microseconds(draft.at)
        connection.execute(_ENTRY, (index, draft.id, dedup, at, site, draft.type, data, leaf))
        connection.executemany(
            "INSERT INTO entry_subject(idx, kind, value) VALUES (?, ?, ?)",
            [(index, kind, value) for kind, value in draft.subject.items()],
        )
        connection.executemany("INSERT INTO entry_cause(idx, cause) VALUES (?, ?)", [(index, c) for c in cause])
        self.frontier = self.frontier.append(leaf)
        self._store_nodes(connection)
        return draft.id

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

    def _count(self, connection: sqlite3.Connection, kind: str, name: str) -> int:
        (value,) = connection.execute(_COUNT, (kind, name)).fetchone()
        return int(value)

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
