from datetime import timedelta

import pytest

from gateway.testing.judge import (
    Death,
    Evening,
    Reported,
    Trial,
    cut_acknowledged,
    durable,
    fallback_in_time,
    heartbeats,
    kept_while_dead,
    made_room,
    meters_heard,
    no_excess,
    power_used,
    registers_agree,
    stations_followed,
)
from gateway.testing.physics import Physics
from tests.unit.testing.evenings import at, good, physics, with_notes, with_physics

TRIALS = {
    "no_excess": no_excess,
    "power_used": power_used(0.7),
    "stations_followed": stations_followed,
    "durable_before_204": durable,
    "heartbeats": heartbeats,
    "measurements": registers_agree,
    "meters_heard": meters_heard,
    "cut_acknowledged": cut_acknowledged,
    "fallback_in_time": fallback_in_time,
    "kept_while_dead": kept_while_dead,
    "others_made_room": made_room(60),
}


def failed(evening: Evening, *apart: str) -> list[str]:
    """The names of the checks that fail, some left aside."""
    checks = [trial(evening) for trial in TRIALS.values()]
    assert [check.name for check in checks] == list(TRIALS)
    return [check.name for check in checks if not check.ok and check.name not in apart]


def test_a_good_evening_passes_every_check() -> None:
    assert failed(good()) == []


def off_by(part: float) -> list[Reported]:
    return [Reported(r.wh * part, r.measured_at) for r in good().notes.reports]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stations_followed", {"profiles": {}}),
        ("durable_before_204", {"missing_at_204": ["q1"]}),
        ("durable_before_204", {"forecasts": []}),
        ("heartbeats", {"heartbeats_in": 0}),
        ("heartbeats", {"heartbeats_out": 0}),
        ("measurements", {"reports": []}),
        ("measurements", {"reports": off_by(1.03)}),
        ("measurements", {"reports": off_by(0.97)}),
        ("measurements", {"reports": [Reported(0, at(0))] * 9}),
        ("meters_heard", {"meter_readings": 0}),
        ("meters_heard", {"meter_refusals": [(at(1_000), at(1_001), "HTTP 403")]}),
        ("kept_while_dead", {"deaths": [Death(at(100), at(200))], "meter_refusals": []}),
        ("fallback_in_time", {"ack_ms": 1_001.0}),
        ("fallback_in_time", {"ack_ms": -1.0}),
        ("fallback_in_time", {"kept_ms": None}),
        ("others_made_room", {"lie": None}),
    ],
)
def test_each_check_fails_alone_on_what_it_is_for(name: str, change: dict) -> None:
    assert failed(with_notes(**change)) == [name]


def test_a_cut_that_no_station_followed_fails() -> None:
    assert failed(with_notes(ack_ms=None)) == ["cut_acknowledged", "fallback_in_time"]


def test_a_death_without_samples_proves_nothing() -> None:
    assert failed(with_notes(deaths=[]), "meters_heard") == ["kept_while_dead"]


def test_stations_that_miss_the_cut_while_nobody_is_there_fail() -> None:
    assert failed(with_physics(physics(draw_w=9_500, lie_w=3_000))) == [
        "no_excess",
        "measurements",
        "kept_while_dead",
        "others_made_room",
    ]


def test_a_site_that_is_simply_off_fails() -> None:
    assert "power_used" in failed(with_physics(physics(draw_w=0)))
    assert "power_used" in failed(with_physics(physics(draw_w=4_140)))


def test_a_lie_without_effect_is_not_taken_for_one_that_was_dealt_with() -> None:
    assert failed(with_physics(physics(lie_w=0)), "measurements") == ["others_made_room"]


def test_an_excess_is_forgiven_no_longer_than_the_others_may_take_to_make_room() -> None:
    assert failed(with_physics(physics(lie_w=3_000, lie_s=70)), "measurements") == ["no_excess", "others_made_room"]


def test_an_evening_that_nobody_watched_fails() -> None:
    unwatched = Physics({"main": good().physics.limits["main"]}, [])
    assert {"no_excess", "power_used", "measurements", "kept_while_dead"} <= set(failed(with_physics(unwatched)))


@pytest.mark.parametrize("trial", TRIALS.values(), ids=list(TRIALS))
def test_every_check_says_its_figures(trial: Trial) -> None:
    assert any(c.isdigit() for c in trial(good()).detail)


def test_a_gateway_that_never_came_back_is_dead_to_the_end() -> None:
    death = Death(at(10))
    assert not death.covers(at(9))
    assert death.covers(at(10) + timedelta(days=1))
