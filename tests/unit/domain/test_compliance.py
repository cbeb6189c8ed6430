"""Verdicts on windows of a minute, measured every ten seconds unless a test says otherwise."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.compliance import ComplianceRecord, Tolerance, Verdict, is_ready, judge
from gateway.domain.quantities import Direction, WattHours, Watts
from gateway.domain.timeline import Interval

START = datetime(2026, 1, 5, 17, 0, tzinfo=UTC)
MINUTE = Interval(START, START + timedelta(minutes=1))


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def every_ten_seconds(*powers_w: int) -> list[tuple[datetime, int]]:
    return [(at(10 * n), power) for n, power in enumerate(powers_w)]


def judged(
    *powers_w: int,
    limit: int | None = 10_000,
    reaction_s: float | None = None,
    steps: Sequence[tuple[datetime, int | None]] = (),
) -> ComplianceRecord:
    return judge(
        steps or [(at(-3_600), limit)],
        every_ten_seconds(*powers_w),
        MINUTE,
        reaction_until=None if reaction_s is None else at(reaction_s),
    )


def test_a_mean_at_the_limit_complies() -> None:
    record = judged(10_000, 11_000, 9_000, 10_000, 10_000, 10_000)
    assert record.verdict is Verdict.COMPLIANT
    assert (record.limit_w, record.mean_w, record.excess_w, record.coverage_pct) == (10_000, 10_000, 0, 100)


def test_the_worst_sample_and_its_time_are_kept_even_when_the_mean_complies() -> None:
    record = judged(9_000, 11_000, 12_000, 9_000, 9_000, 9_000)
    assert record.verdict is Verdict.COMPLIANT
    assert (record.worst_w, record.worst_at, record.excess_s) == (12_000, at(20), 20)


@pytest.mark.parametrize(
    ("power_w", "verdict"),
    [
        (10_000, Verdict.COMPLIANT),
        (10_001, Verdict.WITHIN_TOLERANCE),
        (10_300, Verdict.WITHIN_TOLERANCE),
        (10_301, Verdict.BREACH),
    ],
)
def test_tolerance_is_two_percent_and_a_hundred_watts(power_w: int, verdict: Verdict) -> None:
    assert judged(*[power_w] * 6).verdict is verdict


def test_a_breach_says_how_much_and_how_long() -> None:
    record = judged(*[13_000] * 6)
    assert record.verdict is Verdict.BREACH
    assert (record.excess_w, record.excess_wh, record.excess_s) == (3_000, 50, 60)


@pytest.mark.parametrize(
    ("standby_w", "verdict"),
    [(0, Verdict.COMPLIANT), (60, Verdict.WITHIN_TOLERANCE), (100, Verdict.WITHIN_TOLERANCE), (101, Verdict.BREACH)],
)
def test_a_limit_of_zero_tolerates_standby_and_nothing_else(standby_w: int, verdict: Verdict) -> None:
    record = judged(*[standby_w] * 6, limit=0)
    assert record.verdict is verdict
    assert record.limit_w == 0


def test_no_limit_is_not_a_limit_of_zero() -> None:
    record = judged(*[50_000] * 6, limit=None)
    assert record.verdict is Verdict.EXEMPT
    assert record.limit_w is None


def test_a_limit_that_changes_inside_the_window_is_weighted_by_time() -> None:
    record = judged(9_000, 9_000, 9_000, 3_000, 3_000, 3_000, steps=[(at(-60), 10_000), (at(30), 4_000)])
    assert (record.limit_w, record.mean_w, record.verdict) == (7_000, 6_000, Verdict.COMPLIANT)


def test_the_worst_sample_is_the_one_furthest_above_the_limit_of_its_instant() -> None:
    record = judged(9_000, 9_000, 9_000, 5_000, 3_000, 3_000, steps=[(at(-60), 10_000), (at(30), 4_000)])
    assert (record.worst_w, record.worst_at) == (5_000, at(30))


def test_only_the_time_under_a_limit_is_judged() -> None:
    record = judged(50_000, 50_000, 50_000, 4_000, 4_000, 4_000, steps=[(at(30), 4_000)])
    assert (record.limit_w, record.mean_w, record.verdict) == (4_000, 4_000, Verdict.COMPLIANT)


def test_a_limit_withdrawn_inside_the_window_stops_being_judged() -> None:
    record = judged(4_000, 4_000, 4_000, 50_000, 50_000, 50_000, steps=[(at(-60), 4_000), (at(30), None)])
    assert (record.limit_w, record.mean_w, record.verdict) == (4_000, 4_000, Verdict.COMPLIANT)


def test_a_step_repeated_at_one_instant_counts_as_said_last() -> None:
    record = judged(*[4_000] * 6, steps=[(at(0), 9_000), (at(0), 4_000)])
    assert record.limit_w == 4_000


def test_a_sample_stands_for_no_longer_than_the_gap() -> None:
    record = judge([(START, 10_000)], every_ten_seconds(8_000, 8_000, 8_000), MINUTE, max_gap_s=20)
    assert record.coverage_pct == 66
    assert record.verdict is Verdict.UNKNOWN
    assert record.mean_w == 8_000


def test_ninety_percent_of_known_time_are_enough() -> None:
    samples = [*every_ten_seconds(*[8_000] * 5), (at(50), 8_000)]
    assert judge([(START, 10_000)], samples, MINUTE, max_gap_s=10).verdict is Verdict.COMPLIANT
    assert judge([(START, 10_000)], samples[1:], MINUTE, max_gap_s=10).verdict is Verdict.UNKNOWN
    late = [(when + timedelta(seconds=6), power) for when, power in samples]
    record = judge([(START, 10_000)], late, MINUTE, max_gap_s=10)
    assert (record.coverage_pct, record.verdict) == (90, Verdict.COMPLIANT)


def test_a_sample_from_before_the_window_reaches_into_it() -> None:
    samples = [(at(-5), 8_000), *every_ten_seconds(*[8_000] * 6)[1:]]
    record = judge([(at(-60), 10_000)], samples, MINUTE)
    assert record.coverage_pct == 100
    assert record.worst_at == at(10)


def test_nothing_measured_is_unknown_and_never_compliant() -> None:
    record = judged()
    assert record.verdict is Verdict.UNKNOWN
    assert (record.mean_w, record.worst_w, record.coverage_pct) == (None, None, 0)


def test_a_breach_without_enough_coverage_stays_unknown() -> None:
    assert judged(50_000).verdict is Verdict.UNKNOWN


def test_excess_while_reacting_is_excused() -> None:
    record = judged(20_000, 20_000, 20_000, 9_000, 9_000, 9_000, limit=10_000, reaction_s=30)
    assert record.verdict is Verdict.EXEMPT
    assert (record.mean_w, record.excess_w, record.worst_w) == (14_500, 4_500, 20_000)


def test_excess_after_the_time_for_reacting_is_a_breach_of_the_rest() -> None:
    record = judged(20_000, 20_000, 20_000, 11_000, 11_000, 11_000, limit=10_000, reaction_s=30)
    assert record.verdict is Verdict.BREACH
    assert (record.judged_from, record.mean_w, record.excess_wh) == (at(30), 11_000, 9)


def test_what_was_measured_while_reacting_says_nothing_about_later() -> None:
    assert judged(*[20_000] * 3, limit=10_000, reaction_s=25).verdict is Verdict.UNKNOWN
    assert judged(*[20_000] * 5, 8_000, limit=10_000, reaction_s=45).verdict is Verdict.EXEMPT


def test_the_time_for_reacting_excuses_and_never_accuses() -> None:
    assert judged(0, 0, 0, 19_000, 19_000, 19_000, limit=10_000, reaction_s=30).verdict is Verdict.COMPLIANT


@pytest.mark.parametrize("until", [-10, 0])
def test_a_reaction_that_was_over_before_the_window_excuses_nothing(until: float) -> None:
    assert judged(*[20_000] * 6, reaction_s=until).verdict is Verdict.BREACH


def test_import_and_export_are_judged_apart() -> None:
    samples = every_ten_seconds(6_000, 6_000, 6_000, -6_000, -6_000, -6_000)
    export = judge([(START, 2_000)], samples, MINUTE, direction=Direction.EXPORT)
    imported = judge([(START, 4_000)], samples, MINUTE, direction=Direction.IMPORT)
    assert (export.mean_w, export.worst_w, export.verdict) == (3_000, 6_000, Verdict.BREACH)
    assert (imported.mean_w, imported.verdict) == (3_000, Verdict.COMPLIANT)


def test_a_contract_may_set_another_tolerance() -> None:
    samples = every_ten_seconds(*[10_050] * 6)
    strict = judge([(START, 10_000)], samples, MINUTE, tolerance=Tolerance(permille=0, absolute_w=Watts(0)))
    assert strict.verdict is Verdict.BREACH


@given(st.lists(st.tuples(st.integers(-20, 60), st.integers(-9_000, 30_000)), max_size=20), st.randoms())
def test_the_order_of_samples_means_nothing(points: list[tuple[int, int]], chance: random.Random) -> None:
    samples = [(at(second), power) for second, power in points]
    steps = [(at(-60), 10_000), (at(20), None), (at(40), 5_000)]
    record = judge(steps, samples, MINUTE, reaction_until=at(50))
    assert judge(steps, chance.sample(samples, len(samples)), MINUTE, reaction_until=at(50)) == record


@given(st.lists(st.integers(0, 30_000), min_size=6, max_size=6), st.integers(0, 30_000), st.integers(0, 5_000))
def test_a_tighter_limit_never_makes_a_verdict_milder(powers: list[int], limit: int, tighter_by: int) -> None:
    severity = [Verdict.COMPLIANT, Verdict.WITHIN_TOLERANCE, Verdict.BREACH]
    loose = judged(*powers, limit=limit).verdict
    tight = judged(*powers, limit=max(limit - tighter_by, 0)).verdict
    assert severity.index(tight) >= severity.index(loose)


@given(st.lists(st.integers(0, 30_000), min_size=6, max_size=6), st.integers(0, 30_000))
def test_the_verdict_can_be_taken_again_from_the_figures_of_the_record(powers: list[int], limit: int) -> None:
    record = judged(*powers, limit=limit)
    assert record.mean_w is not None and record.limit_w is not None
    assert (record.verdict is Verdict.COMPLIANT) == (record.mean_w <= record.limit_w)
    assert (record.verdict is Verdict.BREACH) == (record.mean_w > Tolerance().highest_w(record.limit_w))
    assert record.excess_w == max(record.mean_w - record.limit_w, 0)


@pytest.mark.parametrize(
    ("asked", "delivered", "ready"), [(None, 5, None), (5, None, None), (5, 5, True), (5, 4, False)]
)
def test_ready_is_known_only_when_both_figures_are(
    asked: WattHours | None, delivered: WattHours | None, ready: bool | None
) -> None:
    assert is_ready(asked, delivered) is ready
