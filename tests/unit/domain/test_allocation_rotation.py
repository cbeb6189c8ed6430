"""Admission over time (allocator.md §7.2): turns, restarts, and how few are paused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.allocation import Ask, Filling, Limit, Pace, Past, Place, Policy, Stay, Workspace, allocate
from gateway.domain.errors import InfeasibleAllocation

CARS = tuple(Ask(name, "site", 16, 6, phases=("L1",)) for name in "abc")


@dataclass
class Life:
    """A site with one limit on L1, filled again and again."""

    pace: Pace = field(default_factory=Pace)
    few: int = 99
    stays: Mapping[str, Stay] = field(default_factory=dict)

    def at(self, now: float, limit_a: float, asks: Sequence[Ask] = CARS) -> Filling:
        site = [Place("site", None, limits_a={"L1": (Limit("limit_a:L1", limit_a),)})]
        past = Past(self.stays, now, self.pace)
        filling = allocate(site, asks, Policy.EQUAL, unit="A", past=past, workspace=Workspace(site, self.few))
        self.stays = filling.stays
        return filling

    def charging(self, now: float, limit_a: float, asks: Sequence[Ask] = CARS) -> str:
        allocation = self.at(now, limit_a, asks).allocation
        return "".join(sorted(name for name, current_a in allocation.items() if current_a > 0))


@pytest.mark.parametrize("few", [0, 99])
def test_the_third_car_takes_its_turn_after_rotation_s(few: int) -> None:
    """allocator.md §16, example 2."""
    life = Life(few=few)
    first = life.at(0, 16)
    assert first.allocation == {"a": 8, "b": 8, "c": 0}
    assert first.not_admitted == ("c",)
    assert life.charging(899, 16) == "ab"
    assert life.at(900, 16).allocation == {"a": 8, "b": 0, "c": 8}
    assert life.charging(1_799, 16) == "ac"
    assert life.charging(1_800, 16) == "bc", "the one that has charged longest makes room"


def test_in_the_long_run_everybody_has_had_a_turn() -> None:
    life = Life()
    seen = {name for minute in range(0, 60) for name in life.charging(60.0 * minute, 7)}
    assert seen == {"a", "b", "c"}


def test_rotation_does_not_pass_a_higher_priority() -> None:
    asks = (Ask("a", "site", 16, 6, phases=("L1",)), Ask("vip", "site", 16, 6, phases=("L1",), priority=1))
    life = Life()
    assert {life.charging(600.0 * n, 7, asks) for n in range(6)} == {"vip"}


def test_a_cut_pauses_only_the_end_of_the_order() -> None:
    life = Life()
    assert life.charging(0, 18) == "abc"
    assert life.charging(10, 17) == "ab"


def test_who_is_paused_by_a_cut_comes_back_when_there_has_been_room_for_a_while() -> None:
    life = Life()
    life.at(0, 18)
    assert life.charging(10, 12) == "ab"
    assert life.charging(20, 18) == "ab", "its minimum fits, the margin does not"
    assert life.charging(100, 18) == "ab"
    assert life.charging(110, 19) == "ab", "room since now"
    assert life.charging(169, 19) == "ab"
    assert life.charging(170, 19) == "abc"


def test_room_that_comes_and_goes_starts_the_wait_anew() -> None:
    life = Life()
    life.at(0, 12)
    assert [life.charging(now, limit_a) for now, limit_a in ((10, 19), (60, 12), (75, 19), (134, 19), (135, 19))] == [
        "ab",
        "ab",
        "ab",
        "ab",
        "abc",
    ]


def test_a_car_that_has_just_come_does_not_wait_for_a_margin() -> None:
    life = Life()
    assert life.charging(0, 12, CARS[:1]) == "a"
    assert life.charging(5, 12, CARS[:2]) == "ab"


def test_who_has_just_begun_is_not_stopped_for_a_higher_priority() -> None:
    vip = Ask("vip", "site", 16, 6, phases=("L1",), priority=1)
    life = Life(Pace(min_on_s=300))
    assert life.charging(0, 7, CARS[:1]) == "a"
    assert life.charging(299, 7, (CARS[0], vip)) == "a"
    assert life.charging(300, 7, (CARS[0], vip)) == "a", "it has waited for a second, and a restart takes a minute"
    roomy = Life(Pace(min_on_s=300, restart_delay_s=0))
    roomy.at(0, 7, CARS[:1])
    assert roomy.charging(300, 7, (CARS[0], vip)) == "vip"


def test_who_was_paused_stays_so_for_min_off_s() -> None:
    life = Life(Pace(min_off_s=120, restart_delay_s=0))
    life.at(0, 18)
    life.at(10, 12)
    assert life.charging(129, 32) == "ab"
    assert life.charging(130, 32) == "abc"


def test_a_kept_minimum_and_one_without_a_minimum_are_never_refused() -> None:
    kept = Ask("kept", "site", 16, 6, phases=("L1",), keep=True)
    free = Ask("free", "site", 16, 0, phases=("L1",))
    filling = Life().at(0, 3, (kept, free))
    assert filling.allocation == {"kept": 6, "free": 0}
    assert filling.not_admitted == ()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_pace_that_means_nothing_is_refused(value: float) -> None:
    with pytest.raises(InfeasibleAllocation):
        Pace(rotation_s=value)


steps = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 40)), min_size=1, max_size=12)


@given(steps, st.sampled_from([0, 99]), st.sampled_from([Pace(), Pace(min_on_s=200, min_off_s=100)]))
def test_minima_of_the_admitted_always_fit_and_arrays_say_the_same(
    moves: list[tuple[int, int]], few: int, pace: Pace
) -> None:
    life, other, now = Life(pace, few), Life(pace, 99 - few), 0.0
    for wait_s, limit_a in moves:
        now += wait_s
        filling = life.at(now, limit_a)
        assert sum(filling.allocation.values()) <= limit_a + 1e-6
        assert all(share == 0 or 6 <= share <= 16 for share in filling.allocation.values())
        assert other.at(now, limit_a).stays == filling.stays


@given(steps, st.integers(0, 18))
def test_a_cut_never_pauses_all_while_one_minimum_fits(moves: list[tuple[int, int]], cut_a: int) -> None:
    """All who charge at once are never stopped at once for a limit that some of them could keep."""
    life, now = Life(), 0.0
    for wait_s, limit_a in moves:
        now += wait_s
        life.at(now, limit_a)
    before = sum(stay.admitted for stay in life.stays.values())
    after = len(life.charging(now + 1, cut_a))
    assert after >= min(before, cut_a // 6)
