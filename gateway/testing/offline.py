"""Questions about what a gateway left on disk: by its own command line, and straight to the file.

The command line runs as a process of its own, as an auditor would run it. The file is opened
read-only, next to the running writer.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.domain.timeline import rfc3339
from gateway.testing.child import ChildFailed, ask
from gateway.testing.narrate import Check

SITE_FILE = "site.yaml"
"""What the configuration is called in the folder that is asked."""

GRIDGATE = (sys.executable, "-m", "gateway")
"""The command line, as this interpreter runs it."""

QUESTION_S = 15.0
"""Real seconds for one question; an evening's log is read in less than one."""


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
class Head:
    """Where the evidence log ended. None and empty when it did not verify."""

    size: int | None = None
    root: str = ""


async def evidence_check(folder: Path) -> tuple[Check, Head]:
    """Whether the stopped gateway's log verifies, as an auditor would ask."""
    said = await question(folder, "evidence", "verify", SITE_FILE)
    size, root = said.document.get("size"), said.document.get("root")
    ok = said.code == 0 and said.document.get("ok") is True and isinstance(size, int) and size > 0
    if not ok or not isinstance(size, int):
        problems = "; ".join(sorted(texts(said.document.get("problems")))) or said.error or "no answer"
        return Check("evidence", False, f"the log does not verify: {problems}"), Head()
    return Check("evidence", True, f"{size} entries verify against the signed head"), Head(size, str(root))


async def trace_check(folder: Path, node: str, at: datetime | None, request_id: str) -> Check:
    """Whether ``trace`` leads from a meter value to the message that set the limit, and to a verdict."""
    if at is None or not request_id:
        return Check("trace", False, "no cut was kept, so there is no meter value to trace")
    said = await question(folder, "trace", f"{node}@{rfc3339(at)}", SITE_FILE)
    reached = request_id in said.document.get("requests", ())
    verdicts = said.document.get("verdicts") or []
    measured = said.document.get("measurement")
    text = (
        f"from {node}'s meter value during the cut, trace reaches the forecast: {'yes' if reached else 'no'}, "
        f"verdicts: {len(verdicts)}" + (f" ({said.error})" if said.error else "")
    )
    return Check("trace", said.code == 0 and measured is not None and reached and bool(verdicts), text)
