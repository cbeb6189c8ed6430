"""The allocator by example. What holds for every input is in ``tests/property/test_allocation.py``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.domain.allocation import (
    NO_LIMIT,
    Ask,
    CompiledTree,
    Filling,
    Limit,
    Place,
    Policy,
    Rise,
    allocate,
    round_down,
)
from gateway.domain.errors import InfeasibleAllocation

NAN, INFINITY = float("nan"), float("inf")


def limited(place: str, value_w: float, parent: str | None = None, fixed_w: float = 0.0) -> Place:
    return Place(place, parent, (Limit("limit_w", value_w),), fixed_w=fixed_w)


def by_phase(**amperes: float) -> dict[str, tuple[Limit, ...]]:
    return {phase: (Limit(f"limit_a:{phase}", value),) for phase, value in amperes.items()}


def shares(*asks: Ask, at: Place, policy: Policy = Policy.EQUAL) -> Filling:
    return allocate([at], asks, policy)


def words(filling: Filling) -> dict[str, str]:
    return {ask: str(binding) for ask, binding in filling.binding.items()}


def test_a_feeder_is_cleared_before_the_site() -> None:
    """allocator.md §16, example 1."""
    filling = allocate(
        [limited("site", 40_000), limited("f", 12_000, "site")],
        [Ask("a", "f", 11_040), Ask("b", "f", 11_040), Ask("c", "site", 22_080), Ask("d", "site", 22_080)],
        Policy.EQUAL,
    )
    assert filling.allocation == {"a": 6_000, "b": 6_000, "c": 14_000, "d": 14_000}
    assert words(filling) == {"a": "f:limit_w", "b": "f:limit_w", "c": "site:limit_w", "d": "site:limit_w"}


def test_a_phase_that_a_car_does_not_use_does_not_slow_it() -> None:
    """allocator.md §16, example 3."""
    site = Place("site", None, limits_a=by_phase(L1=32, L2=32, L3=32))
    asks = [Ask(f"s{n}", "site", 32, phases=("L1",)) for n in range(3)]
    asks += [Ask("t", "site", 32, phases=("L1", "L2", "L3")), Ask("q", "site", 32, phases=("L2",))]
    filling = allocate([site], asks, Policy.EQUAL, unit="A")
    assert filling.allocation == {"s0": 8, "s1": 8, "s2": 8, "t": 8, "q": 24}


def test_load_above_a_phase_limit_stops_those_on_that_phase_alone_and_is_named() -> None:
    """allocator.md §16, example 4."""
    site = Place("site", None, limits_a=by_phase(L1=25, L2=25, L3=25), fixed_a={"L3": 25.8})
    asks = [Ask("single", "site", 16, 6, phases=("L1",)), Ask("three", "site", 16, 6)]
    filling = allocate([site], asks, Policy.EQUAL, unit="A")
    assert filling.allocation == {"single": 16, "three": 0}
    assert filling.not_admitted == ("three",)
    assert [(v.place, v.label) for v in filling.violations] == [("site", "limit_a:L3")]
    assert filling.standing == {"site": pytest.approx(0.8)}


def test_power_and_current_hold_together() -> None:
    site = Place("site", None, (Limit("limit_w", 6_900),), by_phase(L1=16), fixed_a={"L2": 10})
    asks = [Ask("one", "site", 32, phases=("L1",)), Ask("two", "site", 32, phases=("L2", "L3"))]
    filling = allocate([site], asks, Policy.EQUAL, unit="A", voltage_v=230)
    assert filling.allocation == pytest.approx({"one": 20 / 3, "two": 20 / 3})
    assert filling.headroom == {"site:limit_w": 4_600, "site:limit_a:L1": 16}


def test_the_smaller_of_limit_and_envelope_binds_and_is_named() -> None:
    site = Place("site", None, (Limit("limit_w", 9_000), Limit("env_1", 5_000)))
    assert words(shares(Ask("a", "site", 8_000), at=site)) == {"a": "site:env_1"}


def test_of_equal_limits_the_first_is_named() -> None:
    site = Place("site", None, (Limit("limit_w", 5_000), Limit("env_1", 5_000)))
    assert words(shares(Ask("a", "site", 8_000), at=site)) == {"a": "site:limit_w"}


def test_a_limit_of_zero_gives_nothing_and_no_limit_gives_all() -> None:
    assert shares(Ask("a", "site", 8_000), at=limited("site", 0)).allocation == {"a": 0}
    assert shares(Ask("a", "site", 8_000), at=Place("site", None)).allocation == {"a": 8_000}


def test_a_bottleneck_that_went_slack_is_not_blamed() -> None:
    """The feeder cuts one to its minimum, then the site cuts the other: only the site is full at the end."""
    tree = [limited("site", 4_500), limited("f", 5_000, "site")]
    filling = allocate(tree, [Ask("a", "f", 9_000, 4_000), Ask("b", "f", 20_000)], Policy.EQUAL)
    assert filling.allocation == {"a": 4_000, "b": 500}
    assert words(filling) == {"a": "site:limit_w", "b": "site:limit_w"}


def test_who_gets_all_it_asked_for_is_bound_by_its_own_demand() -> None:
    filling = shares(Ask("a", "site", 4_140, 4_140), Ask("b", "site", 9_000), at=limited("site", 5_000))
    assert words(filling) == {"a": "demand", "b": "site:limit_w"}


def test_weights_count_only_where_the_policy_says_so() -> None:
    asks = (Ask("a", "site", 22_080), Ask("b", "site", 22_080, weight=3))
    site = limited("site", 20_000)
    assert shares(*asks, at=site).allocation == {"a": 10_000, "b": 10_000}
    assert shares(*asks, at=site, policy=Policy.WEIGHTED).allocation == {"a": 5_000, "b": 15_000}


def test_strict_priority_reserves_the_minima_of_the_last_tier_first() -> None:
    asks = (Ask("a", "site", 22_080, 1_380, priority=1), Ask("b", "site", 22_080, 4_140))
    filling = shares(*asks, at=limited("site", 20_000), policy=Policy.STRICT_PRIORITY)
    assert filling.allocation == {"a": 15_860, "b": 4_140}


def test_who_does_not_fit_is_skipped_and_the_scan_goes_on() -> None:
    asks = (
        Ask("late", "site", 9_000, 1_380, deadline=30),
        Ask("big", "site", 9_000, 4_140, deadline=10),
        Ask("first", "site", 9_000, 4_140, priority=1),
    )
    filling = shares(*asks, at=limited("site", 6_000))
    assert filling.not_admitted == ("big",)
    assert filling.allocation == {"first": 4_140, "late": 1_860, "big": 0}
    assert str(filling.binding["big"]) == "not_admitted"


def test_a_departure_comes_before_none_and_the_name_decides_last() -> None:
    asks = (Ask("b", "site", 9_000, 4_140), Ask("a", "site", 9_000, 4_140), Ask("z", "site", 9_000, 4_140, deadline=9))
    assert shares(*asks, at=limited("site", 5_000)).not_admitted == ("a", "b")
    assert shares(*asks, at=limited("site", 9_000)).not_admitted == ("b",)


def test_minima_that_fill_a_limit_exactly_fit() -> None:
    asks = tuple(Ask(f"a{n}", "site", 1.0, 0.1) for n in range(3))
    assert shares(*asks, at=limited("site", 0.3)).not_admitted == ()


def test_a_kept_minimum_is_reserved_before_any_priority() -> None:
    asks = (Ask("a", "site", 9_000, 4_140, priority=9), Ask("kept", "site", 9_000, 4_140, keep=True))
    filling = shares(*asks, at=limited("site", 5_000))
    assert filling.allocation == {"a": 0, "kept": 5_000}


def test_kept_minima_above_a_limit_stand_as_a_violation_and_do_not_leak() -> None:
    tree = [limited("site", 50_000), limited("f", 3_000, "site")]
    asks = [Ask("kept", "f", 9_000, 4_140, keep=True), Ask("a", "f", 9_000), Ask("b", "site", 22_080)]
    filling = allocate(tree, asks, Policy.EQUAL)
    assert filling.allocation == {"kept": 4_140, "a": 0, "b": 22_080}
    assert filling.standing == {"f": 1_140}


def test_load_above_a_limit_is_a_standing_violation_with_its_size() -> None:
    tree = [limited("site", 50_000, fixed_w=1_000), limited("f", 3_000, "site", fixed_w=8_000)]
    filling = allocate(tree, [Ask("a", "f", 9_000), Ask("b", "site", 60_000)], Policy.EQUAL)
    assert filling.standing == {"f": 5_000}
    assert filling.allocation == {"a": 0, "b": 41_000}
    assert filling.headroom == {"site:limit_w": 41_000, "f:limit_w": 0}


def test_whole_watts_are_never_rounded_up() -> None:
    filling = shares(*(Ask(name, "site", 5_000) for name in "abc"), at=limited("site", 10_000))
    assert round_down(filling) == {"a": 3_333, "b": 3_333, "c": 3_333}


def test_a_share_that_falls_below_its_minimum_by_rounding_becomes_nothing() -> None:
    filling = shares(Ask("a", "site", 1_380.9, 1_380.5), at=limited("site", 2_000))
    assert round_down(filling) == {"a": 0}


def test_a_float_error_costs_no_watt() -> None:
    filling = shares(Ask("a", "site", 9_000), at=limited("site", 5_000))
    assert round_down(replace(filling, allocation={"a": 5_000 - 1e-9})) == {"a": 5_000}


def test_nothing_asked_is_a_filling_too() -> None:
    filling = shares(at=limited("site", 5_000))
    assert (filling.allocation, filling.headroom) == ({}, {"site:limit_w": 5_000})


def test_a_current_limit_is_never_silently_dropped_in_watts() -> None:
    site = Place("site", None, limits_a=by_phase(L1=32))
    with pytest.raises(InfeasibleAllocation, match="L1 cannot be held in unit W"):
        allocate([site], [], Policy.EQUAL)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([Place("a", None), Place("a", None)], "same id"),
        ([Place("a", "b")], "no parent 'b'"),
        ([Place("a", "b"), Place("b", "a")], "cycle"),
        ([Place("root", None), Place("a", "a")], "cycle"),
    ],
)
def test_places_that_are_no_tree_are_refused(places: list[Place], message: str) -> None:
    with pytest.raises(InfeasibleAllocation, match=message):
        allocate(places, [], Policy.EQUAL)


def test_an_ask_needs_a_known_place_and_its_own_id() -> None:
    with pytest.raises(InfeasibleAllocation, match="'garage', which is no place"):
        allocate([Place("site", None)], [Ask("a", "garage", 1)], Policy.EQUAL)
    with pytest.raises(InfeasibleAllocation, match="two asks"):
        allocate([Place("site", None)], [Ask("a", "site", 1), Ask("a", "site", 2)], Policy.EQUAL)


@pytest.mark.parametrize("value", [-1.0, NAN, INFINITY])
def test_numbers_that_mean_nothing_are_refused_where_they_enter(value: float) -> None:
    for build in (
        lambda: Limit("limit_w", value),
        lambda: Ask("a", "site", value),
        lambda: Ask("a", "site", 10, value),
        lambda: Ask("a", "site", 10, weight=value),
        lambda: allocate([], [], Policy.EQUAL, voltage_v=value),
    ):
        with pytest.raises(InfeasibleAllocation):
            build()


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_fixed_load_and_deadlines_are_finite(value: float) -> None:
    for build in (
        lambda: Place("a", None, fixed_w=value),
        lambda: Place("a", None, fixed_a={"L1": value}),
        lambda: Ask("a", "site", 10, deadline=value),
    ):
        with pytest.raises(InfeasibleAllocation):
            build()


def test_bounds_and_phases_that_contradict_themselves_are_refused() -> None:
    for build in (
        lambda: Ask("a", "site", 5, 6),
        lambda: Ask("a", "site", 5, weight=0),
        lambda: Ask("a", "site", 5, phases=("L4",)),
        lambda: Ask("a", "site", 5, phases=("L1", "L1")),
        lambda: Place("site", None, limits_a={"N": ()}),
    ):
        with pytest.raises(InfeasibleAllocation):
            build()


def test_a_compiled_tree_serves_many_fillings() -> None:
    tree = CompiledTree([Place("site", None), Place("f", "site")])
    seats = tree.seat(np.array([1, 1, 0]))
    rise = Rise(low=np.zeros(3), high=np.array([9.0, 9.0, 9.0]), weight=np.ones(3), start=np.zeros(3))
    free, nobody = tree.fill(seats, np.array([np.inf, np.inf]), rise)
    tight, who = tree.fill(seats, np.array([9.0, 4.0]), rise)
    assert (free.tolist(), nobody.tolist()) == ([9, 9, 9], [NO_LIMIT] * 3)
    assert (tight.tolist(), who.tolist()) == ([2, 2, 5], [1, 1, 0])
