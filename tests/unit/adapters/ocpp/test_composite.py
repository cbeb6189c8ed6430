"""The composite schedule, computed here and compared with what a station says."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ocpp.translate.composite import (
    SLACK_S,
    Excess,
    Held,
    Piece,
    Purpose,
    Reported,
    Window,
    at,
    composite,
    excess,
    held_by,
    highest,
    read_composite,
)
from adapters.ocpp.translate.profile import Capability, set_profile
from adapters.ocpp.wire import Version
from gateway.domain.effects import Layer
from tests.support.ocpp import T0, a_binding, a_command, falling

V16, V201 = Version.V16, Version.V201
HOUR = Window(T0, 3_600, "A")


def a_profile(limit: float = 16.0, purpose: Purpose = Purpose.DEFAULT, **more: object) -> Held:
    known: dict = {"id": 1, "number": 1, "level": 0, "unit": "A", "periods": ((0, limit, 3),), "start": T0}
    return Held(purpose=purpose, **{**known, **more})


def pieces(*points: tuple[int, float | None]) -> tuple[Piece, ...]:
    return tuple(Piece(offset, limit) for offset, limit in points)


# --- computed here ---------------------------------------------------------------------------


EARLIER = T0 - timedelta(minutes=1)
MAXIMUM = a_profile(16, Purpose.STATION_MAX, number=0, start=T0 - timedelta(hours=5))
STEPPED = a_profile(periods=((0, 13.0, 3), (120, 10.0, 3)), start=EARLIER, duration_s=3_600, id=2)
UNTIL_TEN_PAST = a_profile(8, Purpose.TRANSACTION, start=EARLIER, valid_to=T0 + timedelta(minutes=10), id=3)


@pytest.mark.parametrize(
    ("profiles", "unit", "expected"),
    [
        ([MAXIMUM, STEPPED], "A", [(0, 13.0), (60, 10.0), (3540, 16.0)]),
        ([MAXIMUM, STEPPED, UNTIL_TEN_PAST], "A", [(0, 8.0), (600, 10.0), (3540, 16.0)]),
        ([MAXIMUM, STEPPED, UNTIL_TEN_PAST], "W", [(0, 5520.0), (600, 6900.0), (3540, 11040.0)]),
    ],
)
def test_the_worked_example_of_the_fact_sheet(profiles: list[Held], unit: str, expected: list[tuple[int, float]]):
    window = Window(T0, 7_200, unit)
    assert composite(profiles, 1, window, transaction="7", began=T0) == pieces(*expected)


def test_the_higher_level_overrides_also_upwards():
    assert composite([a_profile(10), a_profile(20, level=1, id=2)], 1, HOUR) == pieces((0, 20.0))


def test_a_higher_level_that_has_ended_gives_way():
    above = a_profile(20, level=1, id=2, duration_s=600)
    assert composite([a_profile(10), above], 1, HOUR) == pieces((0, 20.0), (600, 10.0))


def test_the_default_of_a_connector_takes_the_place_of_the_one_for_all():
    for_all = a_profile(10, number=0, id=2)
    assert composite([a_profile(20), for_all], 1, HOUR) == pieces((0, 20.0))
    assert composite([a_profile(20), for_all], 2, HOUR) == pieces((0, 10.0))


def test_a_transactions_profile_counts_for_its_transaction_alone():
    profiles = [a_profile(16), a_profile(8, Purpose.TRANSACTION, id=2, transaction="7")]
    assert composite(profiles, 1, HOUR, transaction="7") == pieces((0, 8.0))
    assert composite(profiles, 1, HOUR, transaction="8") == pieces((0, 16.0))
    assert composite(profiles, 1, HOUR) == pieces((0, 16.0))


def test_between_purposes_the_lowest_holds():
    outer = a_profile(9, Purpose.EXTERNAL, number=0, id=2)
    assert composite([a_profile(16), MAXIMUM, outer], 1, HOUR) == pieces((0, 9.0))


def test_zero_is_a_limit_and_nothing_is_none():
    assert composite([a_profile(0)], 1, HOUR) == pieces((0, 0.0))
    assert composite([], 1, HOUR) == pieces((0, None))


def test_a_relative_profile_counts_from_the_transactions_start():
    profile = a_profile(purpose=Purpose.TRANSACTION, start=None, periods=((0, 16.0, 3), (600, 8.0, 3)))
    began = T0 - timedelta(seconds=300)
    assert composite([profile], 1, HOUR, transaction="7", began=began) == pieces((0, 16.0), (300, 8.0))


def test_a_daily_profile_comes_again():
    start = T0 - timedelta(days=3) + timedelta(minutes=10)
    profile = a_profile(start=start, periods=((0, 6.0, 3), (600, 16.0, 3)), cycle=timedelta(days=1))
    assert composite([profile], 1, HOUR) == pieces((0, 16.0), (600, 6.0), (1200, 16.0))


@st.composite
def stacks(draw: st.DrawFn) -> list[Held]:
    def one(number: int) -> Held:
        offsets = sorted({0, *draw(st.lists(st.integers(1, 400), max_size=3))})
        start = T0 + timedelta(seconds=draw(st.integers(-300, 300)))
        return Held(
            number,
            draw(st.sampled_from([0, 1])),
            draw(st.sampled_from(Purpose)),
            draw(st.integers(0, 2)),
            "A",
            tuple((offset, float(draw(st.integers(0, 32))), 3) for offset in offsets),
            start,
            draw(st.none() | st.integers(1, 500)),
            valid_to=draw(st.none() | st.just(T0 + timedelta(seconds=250))),
        )

    # Two of one purpose, level and place would not both be installed.
    unique = {(p.purpose, p.level, p.number): p for p in (one(n) for n in range(draw(st.integers(0, 6))))}
    return list(unique.values())


def by_hand(profiles: list[Held], instant: datetime) -> float | None:
    """Every second anew, in the words of the specification."""

    def value(purpose: Purpose, number: int) -> float | None:
        fitting = [p for p in profiles if p.purpose is purpose and p.number == number]
        for profile in sorted(fitting, key=lambda p: -p.level):
            found = profile.value(instant, T0)
            if found is not None:
                return found[0]
        return None

    def stronger(purpose: Purpose) -> list[float]:
        both = [p for p in profiles if p.purpose is purpose]
        for profile in sorted(both, key=lambda p: -p.level):
            found = profile.value(instant, T0)
            if found is not None:
                return [found[0]]
        return []

    own = value(Purpose.TRANSACTION, 1)
    own = value(Purpose.DEFAULT, 1) if own is None else own
    own = value(Purpose.DEFAULT, 0) if own is None else own
    known = stronger(Purpose.EXTERNAL) + stronger(Purpose.STATION_MAX) + ([] if own is None else [own])
    return min(known, default=None)


@given(stacks())
def test_it_is_what_every_second_says_by_hand(profiles: list[Held]):
    found = composite(profiles, 1, Window(T0, 600, "A"), transaction="7", began=T0)
    assert found[0].offset_s == 0
    assert all(a.limit != b.limit for a, b in pairwise(found))
    for second in range(0, 600, 7):
        assert at(found, second) == by_hand(profiles, T0 + timedelta(seconds=second))


@given(stacks(), st.randoms(use_true_random=False))
def test_the_order_of_installing_does_not_matter(profiles: list[Held], random: object):
    shuffled = list(profiles)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    distinct = {(p.purpose, p.level) for p in profiles}
    if len(distinct) == len(profiles):
        assert composite(shuffled, 1, HOUR, transaction="7") == composite(profiles, 1, HOUR, transaction="7")


def test_of_several_that_may_be_installed_the_loosest_counts():
    assert highest([pieces((0, 10.0), (60, 6.0)), pieces((0, 8.0))]) == pieces((0, 10.0), (60, 8.0))
    assert highest([pieces((0, 10.0)), pieces((0, None))]) == pieces((0, None))


@pytest.mark.parametrize("version", Version)
def test_our_own_message_is_read_as_a_station_would(version: Version):
    schedule = falling(T0, (0, 11_000), (900, 5_000))
    command = a_command(layer=Layer.SESSION, transaction="77", schedule=schedule)
    held = held_by(version, set_profile(version, command, a_binding(), Capability(24, 8, "A"), T0))
    assert held is not None
    assert (held.id, held.number, held.purpose, held.level, held.transaction) == (
        900_003,
        1,
        Purpose.TRANSACTION,
        1,
        "77",
    )
    assert composite([held], 1, HOUR, transaction="77") == pieces((0, 14.4), (900, 6.5))


# --- compared ----------------------------------------------------------------------------------


def reported(*points: tuple[int, float], end_s: int = 3_600) -> Reported:
    return Reported(pieces(*points), end_s, converted=False)


EXPECTED = pieces((0, 14.4), (900, 6.5))


@pytest.mark.parametrize(
    "answer",
    [
        reported((0, 14.4), (900, 6.5)),
        reported((0, 14.4), (900 + SLACK_S - 1, 6.5)),
        reported((0, 13.0), (600, 6.0)),
        reported((0, 0.0)),
        reported((0, 14.5), (900, 6.5)),
        reported((0, 14.4), end_s=900),
    ],
    ids=["the same", "a little late", "lower", "nothing allowed", "a step of rounding", "shorter than asked"],
)
def test_a_station_that_allows_no_more_agrees(answer: Reported):
    assert excess(answer, EXPECTED, HOUR) is None


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (reported((0, 32.0)), Excess(0, 14.4, 32.0)),
        (reported((0, 14.4)), Excess(910, 6.5, 14.4)),
        (reported((0, 14.4), (900, 6.5), (1800, 16.0)), Excess(1800, 6.5, 16.0)),
    ],
    ids=["unlimited", "only the first period", "a rise later"],
)
def test_a_station_that_allows_more_is_found(answer: Reported, found: Excess):
    assert excess(answer, EXPECTED, HOUR) == found


ANSWER_16 = {
    "status": "Accepted",
    "connectorId": 1,
    "scheduleStart": "2031-03-01T17:00:00Z",
    "chargingSchedule": {
        "duration": 3600,
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 16}, {"startPeriod": 60, "limit": 6.5}],
    },
}
ANSWER_201 = {
    "status": "Accepted",
    "schedule": {
        "evseId": 1,
        "duration": 3600,
        "scheduleStart": "2031-03-01T17:00:00Z",
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 16}, {"startPeriod": 60, "limit": 6.5}],
    },
}


@pytest.mark.parametrize(("version", "answer"), [(V16, ANSWER_16), (V201, ANSWER_201)])
def test_an_answer_is_read(version: Version, answer: dict):
    found = read_composite(version, json.dumps(answer).encode(), HOUR)
    assert found == Reported(pieces((0, 16.0), (60, 6.5)), 3_600, converted=False)


def test_deviations_met_in_the_field_are_read_over():
    """Longer than asked, a start inside the schedule (SAP simulator), the other unit (SAP ev-server)."""
    schedule = ANSWER_16["chargingSchedule"] | {"duration": 90_000, "startSchedule": "2031-03-01T16:59:00Z"}
    answer = {"status": "Accepted", "connectorId": 1, "chargingSchedule": schedule}
    found = read_composite(V16, json.dumps(answer).encode(), Window(T0, 3_600, "W"))
    assert found == Reported(pieces((-60, 16 * 690.0), (0, 6.5 * 690.0)), 89_940, converted=True)


@pytest.mark.parametrize(
    "answer", [{"status": "Rejected"}, {"status": "Accepted"}, {"status": "Perhaps"}, {"status": "Accepted", "x": 1}]
)
@pytest.mark.parametrize("version", Version)
def test_no_schedule_is_no_proof(version: Version, answer: dict):
    assert read_composite(version, json.dumps(answer).encode(), HOUR) is None


@given(
    st.integers(),
    st.floats(allow_nan=False) | st.integers(),
    st.none() | st.integers(),
    st.none() | st.integers(),
    st.sampled_from(["A", "W"]),
    st.text(max_size=25) | st.just("9999-12-31T23:59:59Z"),
)
def test_no_answer_makes_it_raise(
    offset: int, limit: float, phases: int | None, duration: int | None, unit: str, begins: str
):
    period = {"startPeriod": offset, "limit": limit} | ({} if phases is None else {"numberPhases": phases})
    schedule = {"chargingRateUnit": unit, "chargingSchedulePeriod": [period, period], "startSchedule": begins}
    schedule |= {} if duration is None else {"duration": duration}
    payload = json.dumps({"status": "Accepted", "chargingSchedule": schedule}).encode()
    for window in (HOUR, Window(T0, 3_600, "W")):
        found = read_composite(V16, payload, window)
        if found is not None:
            excess(found, EXPECTED, window)
