"""Questions about what a gateway left on disk: by its own command line, and straight to the file.

The command line runs as a process of its own, as an auditor would run it. The file is opened
read-only, next to the running writer.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.domain.timeline import parse_rfc3339
from gateway.testing.child import ChildFailed, ask

SITE_FILE = "site.yaml"
"""What the configuration is called in the folder that is asked."""

GRIDGATE = (sys.executable, "-m", "gateway")
"""The command line, as this interpreter runs it."""

QUESTION_S = 15.0
"""Real seconds for one question; an evening's log is read in less than one."""

MAX_LOG = 10_000
"""Entries read of one log; an evening has some hundreds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb said: its exit code and the object on its standard output."""

    code: int
    document: Mapping[str, Any]
    error: str


async def question(folder: Path, *words: str) -> Answer:
    """Run a verb with ``--json`` in ``folder``.

    Raises:
        ChildFailed: it took too long.
    """
    code, out, err = await ask((*GRIDGATE, *words, "--json"), folder, QUESTION_S)
    try:
        document = json.loads(out)
    except ValueError:
        return Answer(code, {}, (err or out).strip()[-500:])
    return Answer(code, document if isinstance(document, dict) else {"value": document}, err.strip()[-500:])


def stored_requests(store: Path, request_ids: Sequence[str]) -> set[str]:
    """Which of these message ids the store's inbox durably holds at this moment.

    A reader of its own sees committed transactions only.

    Raises:
        ChildFailed: the store cannot be read.
    """
    marks = ",".join("?" * len(request_ids))
    query = f"SELECT message_id FROM inbox WHERE message_id IN ({marks})"  # noqa: S608  marks are question marks
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=1.0)) as reader:
            return {str(row[0]) for row in reader.execute(query, tuple(request_ids))}
    except sqlite3.Error as problem:
        raise ChildFailed(f"the store {store.name} cannot be read: {problem}") from problem


def texts(value: object) -> set[str]:
    """Every text anywhere inside a JSON value."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, Mapping):
        return set().union(*(texts(v) for v in value.values())) if value else set()
    if isinstance(value, (list, tuple)):
        return set().union(*(texts(v) for v in value)) if value else set()
    return set()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the evidence log, as ``gridgate evidence list`` tells it."""

    type: str
    at: datetime
    subject: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Left:
    """What a stopped gateway left on disk: whether its log verifies, the log, and the lineage of one meter value."""

    verified: Answer
    log: Sequence[Entry] = ()
    traced: Answer | None = None

    def of(self, type_: str, **subject: str) -> list[Entry]:
        """Entries of a type about this subject, oldest first."""
        return [e for e in self.log if e.type == type_ and all(e.subject.get(k) == v for k, v in subject.items())]


async def examine(folder: Path, measured: str | None) -> Left:
    """Ask as an auditor would. ``measured`` is a meter value, NODE@TIME, to be traced.

    Raises:
        ChildFailed: an answer took too long.
    """
    asked = [
        question(folder, "evidence", "verify", SITE_FILE),
        question(folder, "evidence", "list", SITE_FILE, "--limit", str(MAX_LOG)),
    ]
    if measured is not None:
        asked.append(question(folder, "trace", measured, SITE_FILE))
    verified, listed, *traced = await asyncio.gather(*asked)
    log = [
        Entry(row["type"], parse_rfc3339(row["at"]), row["subject"], row["body"])
        for row in reversed(listed.document.get("entries", ()))
    ]
    return Left(verified, log, traced[0] if traced else None)
