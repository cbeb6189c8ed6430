"""A gateway that is broken on purpose must lose its evening, and for the reason that it was broken in."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.testing.world import Hooks, play

pytestmark = pytest.mark.slow

SABOTAGE = Path(__file__).parent / "sabotage"
SPEED = 120.0
"""Twice the story's own: the verdict is asked for, not the figures."""


def lose(capsys: pytest.CaptureFixture[str], script: str = "", hooks: Hooks | None = None) -> list[str]:
    """Play with this gateway; the names of the checks that failed."""
    command = (sys.executable, str(SABOTAGE / script)) if script else None
    code = play("evening-peak", seed=3, json_output=True, gateway_command=command, speed=SPEED, hooks=hooks)
    document = json.loads(capsys.readouterr().out)
    assert (code, document["verdict"]) == (1, "failed"), document
    assert document["error"] is None, "the evening was played and judged"
    return [check["name"] for check in document["checks"] if not check["ok"]]


def test_an_allocator_that_returns_the_maximum_exceeds_the_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no_excess" in lose(capsys, "allocates_the_maximum.py", Hooks(stop_on_failure=True))


def test_dropped_decreases_exceed_the_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no_excess" in lose(capsys, "dropped_decreases.py", Hooks(stop_on_failure=True))


def test_an_acknowledgement_before_the_commit_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert "durable_before_204" in lose(capsys, "acknowledges_before_commit.py", Hooks(stop_on_failure=True))


def test_one_flipped_byte_of_evidence_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert lose(capsys, hooks=Hooks(after_stop=_flip_one_bit)) == ["evidence"]


def _flip_one_bit(store: Path) -> None:
    """In the middle of the log, inside a value, so that it stays well-formed JSON."""
    with closing(sqlite3.connect(store)) as db, db:
        # Whoever may write the file may also take away what keeps the table append-only.
        guards = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'entry'").fetchall()
        for (name,) in guards:
            db.execute(f'DROP TRIGGER "{name}"')
        idx, data = db.execute("SELECT idx, data FROM entry ORDER BY idx LIMIT 1 OFFSET 50").fetchone()
        place = data.index(b'"at":"') + len(b'"at":"') + 3
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        db.execute("UPDATE entry SET data = ? WHERE idx = ?", (flipped, idx))
