"""Every policy by example (allocator.md §7.3), without arrays and with them."""

from __future__ import annotations

import pytest

from gateway.domain.allocation import Ask, Filling, Limit, Place, Policy, Workspace, allocate, default_policy, laxity_s
from gateway.domain.errors import InfeasibleAllocation

HOUR_S = 3_600.0


@pytest.fixture(params=[0, 99], ids=["arrays", "few"])
def few(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def shares(policy: Policy, few: int, *asks: Ask, limit_w: float = 12_000.0, step_s: float = 300.0) -> dict[str, float]:
    return dict(filled(policy, few, *asks, limit_w=limit_w, step_s=step_s).allocation)


def filled(policy: Policy, few: int, *asks: Ask, limit_w: float, step_s: float = 300.0) -> Filling:
    site = [Place("site", None, (Limit("limit_w", limit_w),))]
    return allocate(site, asks, policy, step_s=step_s, workspace=Workspace(site, few))


def test_equal_shares_do_not_look_at_weights(few: int) -> None:
    assert shares(Policy.EQUAL, few, Ask("a", "site", 22_000), Ask("b", "site", 22_000, weight=3)) == {
        "a": 6_000,
        "b": 6_000,
    }


def test_weighted_shares_stand_like_the_weights(few: int) -> None:
    assert shares(Policy.WEIGHTED, few, Ask("a", "site", 22_000), Ask("b", "site", 22_000, weight=3)) == {
        "a": 3_000,
        "b": 9_000,
    }


def test_proportional_shares_stand_like_what_was_asked_for(few: int) -> None:
    assert shares(Policy.PROPORTIONAL, few, Ask("a", "site", 6_000), Ask("b", "site", 18_000, weight=9)) == {
        "a": 3_000,
        "b": 9_000,
    }


def test_proportional_leaves_who_asks_for_nothing_with_nothing(few: int) -> None:
    assert shares(Policy.PROPORTIONAL, few, Ask("a", "site", 0), Ask("b", "site", 18_000)) == {"a": 0, "b": 12_000}


@pytest.mark.parametrize(
    ("policy", "first"), [(Policy.FCFS, "early"), (Policy.EDF, "leaving"), (Policy.LLF, "pressed")]
)
def test_in_turn_the_first_takes_all_it_can_and_the_last_what_is_left(policy: Policy, first: str, few: int) -> None:
    asks = (
        Ask("early", "site", 9_000, arrived=1, deadline=30, laxity_s=90),
        Ask("leaving", "site", 9_000, arrived=2, deadline=10, laxity_s=80),
        Ask("pressed", "site", 9_000, arrived=3, deadline=20, laxity_s=-10),
    )
    got = shares(policy, few, *asks)
    assert got[first] == 9_000
    assert sorted(got.values()) == [0, 3_000, 9_000]


@pytest.mark.parametrize("policy", [Policy.FCFS, Policy.EDF, Policy.LLF])
def test_in_turn_who_is_not_known_comes_last_and_the_name_decides(policy: Policy, few: int) -> None:
    asks = (
        Ask("b", "site", 9_000),
        Ask("a", "site", 9_000),
        Ask("z", "site", 9_000, arrived=5, deadline=5, laxity_s=5),
    )
    assert shares(policy, few, *asks) == {"z": 9_000, "a": 3_000, "b": 0}


def test_in_turn_every_minimum_is_set_aside_first(few: int) -> None:
    asks = (Ask("a", "site", 11_000, 1_380, deadline=1), Ask("b", "site", 11_000, 4_140, deadline=2))
    assert shares(Policy.EDF, few, *asks) == {"a": 7_860, "b": 4_140}


def test_in_turn_a_narrow_place_is_named_for_who_it_stops(few: int) -> None:
    tree = [Place("site", None, (Limit("limit_w", 12_000),)), Place("f", "site", (Limit("limit_w", 5_000),))]
    asks = [Ask("a", "f", 9_000, deadline=1), Ask("b", "site", 9_000, deadline=2), Ask("c", "f", 0, deadline=3)]
    filling = allocate(tree, asks, Policy.EDF, workspace=Workspace(tree, few))
    assert filling.allocation == {"a": 5_000, "b": 7_000, "c": 0}
    assert {ask: str(binding) for ask, binding in filling.binding.items()} == {
        "a": "f:limit_w",
        "b": "site:limit_w",
        "c": "demand",
    }


def test_those_with_equal_patience_share_alike_and_a_much_more_patient_one_waits(few: int) -> None:
    asks = (
        Ask("a", "site", 11_000, laxity_s=600),
        Ask("b", "site", 11_000, laxity_s=600),
        Ask("c", "site", 11_000, laxity_s=2 * HOUR_S),
    )
    assert shares(Policy.LAXITY_LEVEL, few, *asks) == pytest.approx({"a": 6_000, "b": 6_000, "c": 0})


def test_within_a_step_patience_is_made_equal(few: int) -> None:
    """What each gets for 300 s takes the same patience away from both: 450 s are left at either."""
    got = shares(
        Policy.LAXITY_LEVEL, few, Ask("a", "site", 10_000, laxity_s=540), Ask("b", "site", 10_000, laxity_s=660)
    )
    left = {name: was - 300 + 300 * got[name] / 10_000 for name, was in (("a", 540), ("b", 660))}
    assert got == pytest.approx({"a": 8_000, "b": 4_000})
    assert left["a"] == pytest.approx(left["b"])


def test_the_level_of_laxity_keeps_minima_and_gives_all_there_is(few: int) -> None:
    asks = (Ask("a", "site", 11_000, 1_380, laxity_s=9 * HOUR_S), Ask("b", "site", 11_000, 1_380, laxity_s=-60))
    assert shares(Policy.LAXITY_LEVEL, few, *asks) == pytest.approx({"a": 1_380, "b": 10_620})
    assert shares(Policy.LAXITY_LEVEL, few, *asks, limit_w=30_000) == {"a": 11_000, "b": 11_000}


def test_who_does_not_say_when_it_leaves_counts_as_patient_for_an_hour(few: int) -> None:
    asks = (
        Ask("pressed", "site", 8_000, laxity_s=0),
        Ask("unknown", "site", 8_000),
        Ask("patient", "site", 8_000, laxity_s=5 * HOUR_S),
    )
    assert shares(Policy.LAXITY_LEVEL, few, *asks) == pytest.approx({"pressed": 8_000, "unknown": 4_000, "patient": 0})


def test_patience_is_the_time_left_without_the_time_that_charging_takes() -> None:
    assert laxity_s(time_left_s=2 * HOUR_S, energy_wh=11_000, power_w=11_000) == HOUR_S
    assert laxity_s(time_left_s=600, energy_wh=11_000, power_w=11_000) == 600 - HOUR_S


def test_laxity_is_the_default_as_soon_as_one_departure_is_known() -> None:
    known, unknown = Ask("a", "site", 9_000, laxity_s=60), Ask("b", "site", 9_000)
    assert default_policy([unknown]) is Policy.WEIGHTED
    assert default_policy([]) is Policy.WEIGHTED
    assert default_policy([unknown, known]) is Policy.LAXITY_LEVEL


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_times_that_mean_nothing_are_refused(value: float) -> None:
    for build in (
        lambda: Ask("a", "site", 10, arrived=value),
        lambda: Ask("a", "site", 10, laxity_s=value),
        lambda: allocate([], [], Policy.EQUAL, step_s=value),
        lambda: allocate([], [], Policy.EQUAL, step_s=0),
    ):
        with pytest.raises(InfeasibleAllocation):
            build()
