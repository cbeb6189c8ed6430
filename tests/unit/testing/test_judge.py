from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.testing.judge import Notebook, Reported, judge
from gateway.testing.narrate import Check
from gateway.testing.physics import Draw, LimitBook, Physics
from gateway.testing.stage import StationPlan

SIX = datetime(2031, 3, 1, 18, tzinfo=UTC)
STATIONS = (StationPlan("CP-1", "main/evse-1", "1.6"),)


def at(seconds: float) -> datetime:
    return SIX + timedelta(seconds=seconds)


def an_evening(draw_w: float = 9_000.0, limit_w: float = 10_000.0) -> Physics:
    physics = Physics({"main": LimitBook(limit_w)}, [Draw("main/evse-1", lambda _: draw_w, lambda _: 11_000.0)])
    for second in range(0, 3_601, 10):
        physics.sample(at(second))
    return physics


def good_notes() -> Notebook:
    return Notebook(
        forecasts=["q1"],
        cut_request="q1",
        cut_ms=40.0,
        heartbeats_out=3,
        heartbeats_in=3,
        reports=[Reported(2.5 * n, at(n)) for n in range(60, 3_600, 60)],
        profiles={"CP-1": 2},
    )


def verdicts(physics: Physics, notes: Notebook) -> dict[str, bool]:
    checks = judge(physics, notes, STATIONS, "main", 0.7)
    return {check.name: check.ok for check in checks}


def test_a_good_evening_passes_every_check() -> None:
    assert all(verdicts(an_evening(), good_notes()).values())


def off_by(part: float) -> list[Reported]:
    return [replace(r, wh=r.wh * part) for r in good_notes().reports]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("stations_followed", lambda notes: replace(notes, profiles={})),
        ("durable_before_204", lambda notes: replace(notes, missing_at_204=["q1"])),
        ("durable_before_204", lambda notes: replace(notes, forecasts=[])),
        ("heartbeats", lambda notes: replace(notes, heartbeats_in=0)),
        ("heartbeats", lambda notes: replace(notes, heartbeats_out=0)),
        ("measurements", lambda notes: replace(notes, reports=[])),
        ("measurements", lambda notes: replace(notes, reports=off_by(1.03))),
        ("measurements", lambda notes: replace(notes, reports=off_by(0.97))),
        ("measurements", lambda notes: replace(notes, reports=[Reported(0, at(0))] * 9)),
        ("cut_acknowledged", lambda notes: replace(notes, cut_ms=None)),
    ],
)
def test_each_check_fails_alone_on_what_it_is_for(name: str, spoil: Callable[[Notebook], Notebook]) -> None:
    found = verdicts(an_evening(), spoil(good_notes()))
    assert [check for check, ok in found.items() if not ok] == [name]


def test_a_site_above_its_limit_fails() -> None:
    assert not verdicts(an_evening(draw_w=10_500), good_notes())["no_excess"]


def test_a_site_that_is_simply_off_fails() -> None:
    assert not verdicts(an_evening(draw_w=0), good_notes())["power_used"]
    assert not verdicts(an_evening(draw_w=4_140), good_notes())["power_used"]


def test_an_evening_that_nobody_watched_fails() -> None:
    checks = judge(Physics({}, []), Notebook(), STATIONS, "main", 0.7)
    assert not any(check.ok for check in checks)


def test_every_check_says_its_figures() -> None:
    checks: list[Check] = judge(an_evening(), good_notes(), STATIONS, "main", 0.7)
    assert all(any(c.isdigit() for c in check.detail) for check in checks)
