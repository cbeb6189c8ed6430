"""How far phases may differ: what is taken, from whom, and who gets what that leaves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.allocation import Ask, Filling, Limit, Place, Policy, Spread, allocate, balanced

SITE = "site"
PHASES = ("L1", "L2", "L3")


def share_out(
    asks: Sequence[Ask], spread_a: float, *, limit_a: float = 1_000, limit_w: float = 1e9, **fixed_a: float
) -> Filling:
    limits = {phase: (Limit(f"a:{phase}", limit_a),) for phase in PHASES}
    places = [Place(SITE, None, (Limit("w", limit_w),), limits, fixed_a=fixed_a)]

    def fill(asks: Sequence[Ask]) -> Filling:
        return allocate(places, asks, Policy.WEIGHTED, unit="A")

    return balanced(fill, places, asks, {SITE: Spread(spread_a)})


def car(name: str, *phases: str, most: float = 32, least: float = 6, **more: object) -> Ask:
    return Ask(name, SITE, most, least, phases=phases, **more)  # type: ignore[arg-type]  # fields of Ask by name


def loads(filling: Filling, asks: Sequence[Ask], **fixed_a: float) -> dict[str, float]:
    return {
        phase: fixed_a.get(phase, 0.0) + sum(filling.allocation[ask.id] for ask in asks if phase in ask.phases)
        for phase in PHASES
    }


def test_one_car_on_one_phase_takes_no_more_than_the_phases_may_differ() -> None:
    filling = share_out([car("a", "L1")], 20)
    assert filling.allocation["a"] == pytest.approx(20)
    assert str(filling.binding["a"]) == "site:unbalance_a:L1"


def test_a_car_on_every_phase_takes_all_it_can() -> None:
    filling = share_out([car(phase, phase) for phase in PHASES], 1)
    assert list(filling.allocation.values()) == [32, 32, 32]


def test_cars_on_the_heaviest_phase_share_the_cut_and_three_phase_cars_keep_theirs() -> None:
    asks = [car("a", "L1"), car("b", "L1", most=8), car("c", *PHASES, most=16)]
    filling = share_out(asks, 20)
    assert [filling.allocation[name] for name in "abc"] == pytest.approx([12, 8, 16])


def test_what_is_taken_goes_to_others() -> None:
    filling = share_out([car("a", "L1"), car("c", *PHASES)], 10, limit_w=230 * 64)
    assert [filling.allocation[name] for name in "ac"] == pytest.approx([10, 18])


def test_those_whose_least_does_not_fit_are_shed_from_the_end() -> None:
    asks = [car("a", "L1"), car("b", "L1", priority=1), car("c", "L1")]
    filling = share_out(asks, 13)
    assert [filling.allocation[name] for name in "abc"] == pytest.approx([6.5, 6.5, 0])
    assert filling.not_admitted == ("c",)


def test_a_load_that_is_balanced_by_cars_lets_them_charge() -> None:
    filling = share_out([car("a", "L2"), car("b", "L3")], 5, L1=20.0)
    assert [filling.allocation[name] for name in "ab"] == pytest.approx([25, 25])


def test_what_nobody_can_help_takes_the_minimum_that_is_kept_and_no_more() -> None:
    filling = share_out([car("a", "L1", keep=True)], 5, L1=20.0)
    assert filling.allocation["a"] == 6


asks_of = st.lists(
    st.tuples(st.sampled_from([("L1",), ("L2",), ("L3",), ("L1", "L2"), PHASES]), st.floats(6, 63), st.integers(1, 3)),
    min_size=1,
    max_size=8,
)


@given(drawn=asks_of, spread_a=st.floats(0, 40), limit_a=st.floats(0, 80))
def test_phases_never_differ_by_more_and_nothing_rises_above_its_limit(
    drawn: list[tuple[tuple[str, ...], float, int]], spread_a: float, limit_a: float
) -> None:
    asks = [car(f"{n}", *phases, most=most, weight=weight) for n, (phases, most, weight) in enumerate(drawn)]
    filling = share_out(asks, spread_a, limit_a=limit_a)
    carried = loads(filling, asks)
    assert max(carried.values()) - min(carried.values()) <= spread_a + 1e-5
    assert max(carried.values()) <= limit_a + 1e-6
    for ask in asks:
        given_a = filling.allocation[ask.id]
        assert given_a == 0 or ask.min - 1e-6 <= given_a <= ask.max + 1e-6


def test_a_place_on_two_phases_is_not_compared_with_the_third() -> None:
    asks = [car("a", "L1"), car("b", "L2")]
    places = [Place(SITE, None)]
    filling = balanced(
        lambda some: allocate(places, some, Policy.EQUAL, unit="A"), places, asks, {SITE: Spread(5, ("L1", "L2"))}
    )
    assert [filling.allocation[name] for name in "ab"] == [32, 32]
