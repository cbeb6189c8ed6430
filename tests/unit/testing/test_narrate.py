import io
import json
from dataclasses import replace
from datetime import UTC, datetime

from gateway.testing.narrate import Check, LineNarrator, LiveNarrator, Verdict, narrator, tree_rows
from gateway.testing.physics import Reading

SIX = datetime(2031, 3, 1, 18, tzinfo=UTC)
GOOD = Verdict("evening-peak", 7, 41, 0, 0, 120, "ab", (Check("no_excess", True, "0 W"),))


def test_the_verdict_line_names_every_figure() -> None:
    assert GOOD.line() == "verdict ok signal_to_ack_ms=41 excess_w=0 excess_s=0 evidence=120 root=ab"


def test_what_was_not_reached_is_a_dash_and_never_a_zero() -> None:
    line = Verdict("evening-peak", 7, error="the gateway died").line()
    assert line == "verdict failed signal_to_ack_ms=- excess_w=- excess_s=- evidence=- root=-"


def test_one_failed_check_fails_the_verdict() -> None:
    assert not replace(GOOD, checks=(*GOOD.checks, Check("x", False, ""))).ok
    assert not replace(GOOD, checks=()).ok
    assert not replace(GOOD, error="broke").ok


def test_json_is_one_object_with_the_keys_of_the_line() -> None:
    out = io.StringIO()
    voice = narrator(True, out)
    voice.open("title")
    voice.event(SIX, "something")
    voice.close(GOOD)
    document = json.loads(out.getvalue())
    keys = {part.partition("=")[0] for part in GOOD.line().split()[2:]} | {"verdict"}
    assert keys <= set(document)
    assert document["checks"] == [{"name": "no_excess", "ok": True, "detail": "0 W"}]


def test_off_a_terminal_every_event_is_one_line_and_the_verdict_is_last() -> None:
    out = io.StringIO()
    voice = LineNarrator(out)
    voice.open("title")
    voice.event(SIX, "a peer says \x1b[2Jboo\n")
    voice.close(GOOD)
    lines = out.getvalue().splitlines()
    assert lines[1] == "18:00:00  a peer says \\x1b[2Jboo\\x0a"
    assert lines[-1] == GOOD.line()


def test_the_tree_shows_parents_first_with_limit_and_use() -> None:
    reading = Reading(SIX, {"main/garage": 10_000.0, "main": 20_000.0}, {"main": 40_000.0})
    rows = tree_rows(reading, {"main/garage": "two cars"})
    assert rows[0].startswith("main ")
    assert "40 000 W limit" in rows[0]
    assert rows[0].count("▇") == 10
    assert rows[1].endswith("two cars")


def test_the_live_tree_ends_with_the_verdict_too() -> None:
    out = io.StringIO()
    voice = LiveNarrator(out)
    voice.open("title")
    voice.frame(Reading(SIX, {"main": 1.0}, {"main": 2.0}), {})
    voice.event(SIX, "hello")
    voice.close(GOOD)
    assert out.getvalue().rstrip().endswith(GOOD.line())
