"""Checks a whole evidence log from its bytes: read-only, trusting nothing that is stored but them.

What is recomputed: every leaf from its entry, the tree, the root under every checkpoint, the digests
of the messages beside the log, the dense numbers per site and party, and the look-up columns.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

from gateway.domain.errors import GatewayError, MalformedMessage
from gateway.domain.evidence import sha256_hex
from gateway.domain.merkle import EMPTY_ROOT, Frontier, leaf_hash
from gateway.domain.note import Checkpoint, VerifierKey, open_checkpoint, parse_verifier_key
from gateway.domain.timeline import EPOCH, rfc3339
from gateway.infra.evidence_key import verify_signature
from gateway.infra.evidence_tree import TILE_HEIGHT, TILE_WIDTH, fold
from gateway.infra.store_sql.connection import connect_reader

MAX_PROBLEMS = 50
"""Problems that a report lists; the first ones matter, their number is counted on."""

_Row: TypeAlias = tuple[int, str, int, str, str, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold. ``index`` is the entry's, or the checkpoint's tree size."""

    code: str
    index: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and found. ``root`` is hex.

    ``signed_size`` is how many entries the newest good checkpoint covers. ``vkey_given`` says
    whether the key came from outside; else it is the log's own word. ``raw_missing`` are cited
    messages that are not kept any more: no damage by itself.
    """

    size: int
    root: str
    checkpoints: int
    signed_size: int
    vkey: str
    vkey_given: bool
    raw_checked: int
    raw_missing: tuple[str, ...]
    problems: tuple[Problem, ...]
    problem_count: int

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return self.problem_count == 0


def verify_log(db_path: Path, *, head_path: Path | None = None, vkey: str | None = None) -> Report:
    """Check the log at ``db_path``; never raises for what is wrong inside it.

    Args:
        head_path: the last signed head outside the database, compared when given.
        vkey: the verifier key string, obtained out of band; without it the stored one is used.

    Raises:
        StoreError: no such file, or no store.
        MalformedMessage: ``vkey`` is no verifier key.
    """
    given = None if vkey is None else parse_verifier_key(vkey)
    with closing(connect_reader(Path(db_path))) as connection:
        connection.execute("BEGIN")  # one snapshot, whatever a running gateway adds
        return _Check(connection, given).run(head_path)


@dataclass(slots=True)
class _Numbers:
    """The dense counts seen so far."""

    site: Counter[str] = field(default_factory=Counter)
    party: Counter[str] = field(default_factory=Counter)


class _Check:
    """One pass over one snapshot."""

    def __init__(self, connection: sqlite3.Connection, given: VerifierKey | None) -> None:
        self._db = connection
        self._given = given
        self._key = given
        self._problems: list[Problem] = []
        self._count = 0
        self._frontier = Frontier()
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self._cited: dict[str, int] = {}
        self._numbers = _Numbers()
        self._signed_size = 0
        self._raw_checked = 0
        self._raw_missing: tuple[str, ...] = ()

    def run(self, head_path: Path | None) -> Report:
        self._load_key()
        notes = self._guard("checkpoint-unreadable", lambda: self._all("SELECT size, note FROM checkpoint")) or []
        outside = None if head_path is None else self._read_outside(head_path)
        wanted = {size for size, _ in notes if isinstance(size, int)}
        self._guard("entries-unreadable", lambda: self._entries(wanted | ({outside.size} if outside else set())))
        self._guard("head-unreadable", self._head)
        self._guard("tree-unreadable", self._nodes)
        for size, note in notes:
            self._checkpoint(size, note)
        if outside is not None:
            self._compare("head-file", outside)
        self._guard("lookup-unreadable", self._lookups)
        self._guard("raw-unreadable", self._raws)
        return Report(
            size=self._frontier.size,
            root=self._frontier.root().hex(),
            checkpoints=len(notes),
            signed_size=self._signed_size,
            vkey="" if self._key is None else str(self._key),
            vkey_given=self._given is not None,
            raw_checked=self._raw_checked,
            raw_missing=self._raw_missing,
            problems=tuple(self._problems),
            problem_count=self._count,
        )

    # --- key and heads ----------------------------------------------------------------------

    def _load_key(self) -> None:
        row = self._guard("head-unreadable", lambda: self._db.execute("SELECT vkey FROM head").fetchone())
        if row is None:
            self._found("no-head", None, "there is no log in this file")
            return
        try:
            stored = parse_verifier_key(row[0])
        except MalformedMessage as problem:
            self._found("key", None, f"the stored verifier key is none: {problem}")
            return
        if self._key is None:
            self._key = stored
        elif stored != self._key:
            self._found("key", None, f"the log names the key {stored}, expected {self._key}")

    def _read_outside(self, head_path: Path) -> Checkpoint | None:
        try:
            return self._open_note(Path(head_path).read_bytes())
        except (OSError, GatewayError) as problem:
            self._found("head-file", None, f"{Path(head_path).name}: {problem}")
            return None

    def _open_note(self, note: bytes) -> Checkpoint:
        if self._key is None:
            raise MalformedMessage("there is no key to check it with")
        checkpoint = open_checkpoint(note, self._key, verify_signature)
        if checkpoint.origin != self._key.name:
            raise MalformedMessage(f"it is of {checkpoint.origin}")
        return checkpoint

    def _checkpoint(self, size: int, note: bytes) -> None:
        try:
            checkpoint = self._open_note(note)
        except MalformedMessage as problem:
            self._found("checkpoint", size, str(problem))
            return
        if checkpoint.size != size:
            self._found("checkpoint", size, f"the row of size {size} holds a checkpoint of {checkpoint.size}")
        self._compare("checkpoint", checkpoint)

    def _compare(self, code: str, checkpoint: Checkpoint) -> None:
        root = self._roots.get(checkpoint.size)
        if root is None:
            self._found(code, checkpoint.size, f"{checkpoint.size} entries were signed, {self._frontier.size} are here")
        elif root != checkpoint.root:
            self._found(code, checkpoint.size, f"the first {checkpoint.size} entries are not those that were signed")
        else:
            self._signed_size = max(self._signed_size, checkpoint.size)

    def _head(self) -> None:
        size, edge, root = self._db.execute("SELECT size, frontier, root FROM head").fetchone()
        mine = self._frontier
        if (size, edge, root) != (mine.size, mine.to_bytes(), mine.root()):
            self._found("head", None, f"the stored head of {size} entries is not that of the {mine.size} entries")

    # --- entries ----------------------------------------------------------------------------

    def _entries(self, wanted: set[int]) -> None:
        rows = self._db.execute("SELECT idx, id, at, site, type, data, leaf FROM entry ORDER BY idx")
        for row in rows:
            self._entry(row)
            if self._frontier.size in wanted:
                self._roots[self._frontier.size] = self._frontier.root()

    def _entry(self, row: _Row) -> None:
        index, id_, at, site, type_, data, leaf = row
        if index != self._frontier.size:
            self._found("gap", index, f"entry {index} follows {self._frontier.size - 1}")
        computed = leaf_hash(data)
        if computed != leaf:
            self._found("leaf", index, "the entry is not the one that was hashed")
        self._frontier = self._frontier.append(computed)
        try:
            document = json.loads(data)
            said = (document["id"], document["at"], document["site"], document["type"])
            subject = document["subject"]
        except (ValueError, KeyError, TypeError) as problem:
            self._found("entry", index, f"not an entry: {type(problem).__name__}")
            return
        columns = (id_, rfc3339(EPOCH + timedelta(microseconds=at)), site, type_)
        if said != columns:
            self._found("lookup", index, f"the columns {columns} contradict the entry {said}")
        self._dense(index, "site_seq", self._numbers.site, site, document.get("site_seq"))
        if isinstance(subject, dict) and subject.get("peer"):
            self._dense(index, "pseq", self._numbers.party, str(subject["peer"]), document.get("pseq"))
        raw = document.get("raw")
        if isinstance(raw, dict) and isinstance(raw.get("sha256"), str):
            self._cited.setdefault(raw["sha256"], index)

    def _dense(self, index: int, name: str, counts: Counter[str], key: str, said: object) -> None:
        counts[key] += 1
        if said != counts[key]:
            self._found(name, index, f"{name} of {key!r} is {said}, {counts[key]} is due")
            if isinstance(said, int):
                counts[key] = said

    def _nodes(self) -> None:
        """The stored inner hashes, each from the row below it."""
        query = "SELECT level, pos, hash FROM node ORDER BY level, pos"
        stored: dict[int, list[bytes]] = {}
        for level, pos, value in self._db.execute(query):
            row = stored.setdefault(level, [])
            if pos != len(row):
                self._found("tree", None, f"level {level} jumps to {pos}")
                return
            row.append(value)
        level, below = TILE_HEIGHT, self._leaves()
        while True:
            computed = list(_folded(below))
            if stored.pop(level, []) != computed:
                self._found("tree", None, f"the stored hashes of level {level} are not those of the entries")
            if len(computed) < TILE_WIDTH:
                break
            level, below = level + TILE_HEIGHT, iter(computed)
        if stored:
            self._found("tree", None, f"hashes of level {min(stored)} belong to no tree of this size")

    def _leaves(self) -> Iterator[bytes]:
        return (leaf for (leaf,) in self._db.execute("SELECT leaf FROM entry ORDER BY idx"))

    # --- beside the log ---------------------------------------------------------------------

    def _lookups(self) -> None:
        """The tables that `trace` walks, against the entries."""
        subjects = _grouped(self._db.execute("SELECT idx, kind, value FROM entry_subject ORDER BY idx"))
        causes = _grouped(self._db.execute("SELECT idx, cause FROM entry_cause ORDER BY idx"))
        subject, cause = next(subjects, None), next(causes, None)
        for index, data in self._db.execute("SELECT idx, data FROM entry ORDER BY idx"):
            here = there = frozenset[tuple[Any, ...]]()
            if subject is not None and subject[0] == index:
                here, subject = subject[1], next(subjects, None)
            if cause is not None and cause[0] == index:
                there, cause = cause[1], next(causes, None)
            expected = _expected(data)
            if expected is not None and (here, there) != expected:
                self._found("lookup", index, "the look-up tables contradict the entry")
        if subject is not None or cause is not None:
            self._found("lookup", None, "the look-up tables name entries that do not exist")

    def _raws(self) -> None:
        kept = set()
        for sha256, size, data in self._db.execute("SELECT sha256, size, data FROM raw"):
            kept.add(sha256)
            self._raw_checked += 1
            if sha256_hex(data) != sha256 or len(data) != size:
                self._found("raw", self._cited.get(sha256), f"the message kept as {sha256} has another digest or size")
        self._raw_missing = tuple(sorted(set(self._cited) - kept))

    # --- plumbing ---------------------------------------------------------------------------

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        return self._db.execute(query).fetchall()

    def _guard(self, code: str, act: Any) -> Any:
        """What ``act`` returns; a damaged file is a finding, not a crash."""
        try:
            return act()
        except (sqlite3.Error, TypeError, ValueError) as problem:
            self._found(code, None, f"{type(problem).__name__}: {problem}")
            return None

    def _found(self, code: str, index: int | None, message: str) -> None:
        self._count += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(code, index, message))


def _folded(hashes: Iterator[bytes]) -> Iterator[bytes]:
    """The hash of every full group of 256."""
    group: list[bytes] = []
    for value in hashes:
        group.append(value)
        if len(group) == TILE_WIDTH:
            yield fold(group)
            group = []


def _grouped(rows: sqlite3.Cursor) -> Iterator[tuple[int, frozenset[tuple[Any, ...]]]]:
    for index, group in groupby(rows, key=lambda row: row[0]):
        yield int(index), frozenset(tuple(row[1:]) for row in group)


def _expected(data: bytes) -> tuple[frozenset[tuple[Any, ...]], frozenset[tuple[Any, ...]]] | None:
    """Subjects and causes that the entry itself names; None for what is no entry (reported before)."""
    try:
        document = json.loads(data)
        return frozenset(document["subject"].items()), frozenset((c,) for c in document["cause"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
