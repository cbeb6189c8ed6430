"""A gateway that is broken on purpose must lose its evening, and for the reason that it was broken in."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.testing.world import WALL_LIMIT_S, Hooks, play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(WALL_LIMIT_S + 20)]

SABOTAGE = Path(__file__).parent / "sabotage"
STOP = Hooks(stop_on_failure=True)


class Evening:
    """Plays a story with a gateway that is broken."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def lost(self, story: str, script: str = "", *, hooks: Hooks | None = STOP) -> list[str]:
        """The names of the checks that failed."""
        command = (sys.executable, str(SABOTAGE / script)) if script else None
        code = play(story, seed=3, json_output=True, gateway_command=command, hooks=hooks)
        document = json.loads(self._capsys.readouterr().out)
        assert (code, document["verdict"]) == (1, "failed"), document
        assert document["error"] is None, "the evening was played and judged"
        return [check["name"] for check in document["checks"] if not check["ok"]]


@pytest.fixture
def evening(capsys: pytest.CaptureFixture[str]) -> Evening:
    return Evening(capsys)


def test_an_allocator_that_returns_the_maximum_loses_the_evening(evening: Evening) -> None:
    # What was given out before the cut is known stays too much. What is given out after it is held down by the
    # ledger, which trusts no allocator; then nobody follows the cut that comes without warning.
    lost = evening.lost("evening-peak", "allocates_the_maximum.py")
    assert "no_excess" in lost or "cut_acknowledged" in lost


def test_dropped_decreases_exceed_the_cut(evening: Evening) -> None:
    assert "no_excess" in evening.lost("evening-peak", "dropped_decreases.py")


def test_an_acknowledgement_before_the_commit_is_seen(evening: Evening) -> None:
    assert "durable_before_204" in evening.lost("evening-peak", "acknowledges_before_commit.py")


def test_one_flipped_byte_of_evidence_is_found(evening: Evening) -> None:
    hooks = Hooks(after_stop=_flip_one_bit)
    assert evening.lost("evening-peak", hooks=hooks) == ["evidence"]


def test_a_gateway_that_forgets_the_deadline_does_not_fall_back(evening: Evening) -> None:
    failed = evening.lost("dso-silent", "forgets_the_deadline.py")
    assert {"fallback_in_time", "fallback_recorded", "no_excess"} <= set(failed)


def test_a_gateway_that_takes_the_first_heartbeat_for_a_fresh_limit_exceeds_the_fallback(evening: Evening) -> None:
    failed = evening.lost("dso-silent", "believes_the_first_heartbeat.py")
    assert {"fallback_recorded", "no_excess"} <= set(failed)
    assert "fallback_in_time" not in failed


def test_what_was_acknowledged_before_it_was_stored_is_lost_with_a_crash(evening: Evening) -> None:
    failed = evening.lost("crash", "acknowledges_before_commit.py", hooks=None)
    assert {"durable_before_204", "recorded_once"} <= set(failed)


def test_a_gateway_that_forgets_its_limits_when_it_dies_exceeds_them_afterwards(evening: Evening) -> None:
    failed = evening.lost("crash", "forgets_limits_at_restart.py")
    assert "no_excess" in failed
    assert "kept_while_dead" not in failed, "the stations kept what they held"


def test_stations_without_schedules_of_their_own_exceed_a_cut_that_begins_while_nobody_is_there(
    evening: Evening,
) -> None:
    failed = evening.lost("crash", "plans_no_cuts.py")
    assert {"kept_while_dead", "no_excess"} <= set(failed)


def test_a_car_that_came_while_nobody_was_there_and_is_not_recorded_is_missed(evening: Evening) -> None:
    assert evening.lost("crash", "drops_late_transactions.py") == ["sessions_once"]


def test_a_gateway_that_believes_every_station_lets_the_liar_have_it(evening: Evening) -> None:
    failed = evening.lost("lying-station", "believes_every_station.py")
    assert {"others_made_room", "liar_named", "no_excess"} <= set(failed)


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
