"""Invariants of the allocator (allocator.md §14) and equality with an exact reference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.domain.allocation import (
    Ask,
    CompiledTree,
    Filling,
    HeldFilling,
    Limit,
    Place,
    Policy,
    Rise,
    Workspace,
    allocate,
    round_down,
)
from tests.property import filling_reference as reference

VOLTAGE_V = 230
FAIR = (Policy.EQUAL, Policy.WEIGHTED, Policy.PROPORTIONAL)
TOGETHER = (*FAIR, Policy.LAXITY_LEVEL)


@dataclass(frozen=True)
class Problem:
    places: tuple[Place, ...]
    asks: tuple[Ask, ...]
    policy: Policy
    unit: Literal["W", "A"]
    few: int
    """Up to how many asks the allocator goes without arrays: here both ways are tried."""

    def solve(self, workspace: Workspace | None = None) -> Filling:
        return allocate(
            self.places,
            self.asks,
            self.policy,
            unit=self.unit,
            voltage_v=VOLTAGE_V,
            workspace=Workspace(self.places, self.few) if workspace is None else workspace,
        )

    def rows(self) -> list[reference.Row]:
        return reference.rows_of(self.places, self.asks, self.unit, VOLTAGE_V)

    def level(self, ask: Ask, share: float) -> float:
        """The level at which an ask's line gives it this share."""
        line = reference.lines_of(self.asks, self.policy)[ask.id]
        return float(line.start) + share / float(line.weight)


@st.composite
def limits(draw: st.DrawFn, names: Sequence[str], highest: int) -> tuple[Limit, ...]:
    value = st.none() | st.integers(0, highest) | st.integers(0, highest // 6)
    values = draw(st.lists(value, min_size=len(names), max_size=len(names)))
    return tuple(Limit(name, value) for name, value in zip(names, values, strict=True) if value is not None)


@st.composite
def places(draw: st.DrawFn, unit: Literal["W", "A"]) -> tuple[Place, ...]:
    made: list[Place] = []
    for n in range(draw(st.integers(1, 6))):
        amperes = {}
        if unit == "A":
            for phase in ("L1", "L2", "L3"):
                amperes[phase] = draw(limits((f"limit_a:{phase}", f"envelope_a:{phase}"), 80))
        made.append(
            Place(
                f"n{n}",
                made[draw(st.integers(0, n - 1))].id if n else None,
                draw(limits(("limit_w", "envelope_w"), 60_000)),
                amperes,
                draw(st.sampled_from([0, 0, 900, 12_000, -3_000])),
                {"L1": draw(st.sampled_from([0, 0, 5, 30]))} if unit == "A" else {},
            )
        )
    return tuple(made)


@st.composite
def problems(
    draw: st.DrawFn,
    units: Sequence[Literal["W", "A"]] = ("W", "A"),
    policies: Sequence[Policy] = tuple(Policy),
    *,
    minima: bool = True,
    keeping: bool = False,
) -> Problem:
    unit = draw(st.sampled_from(units))
    tree = draw(places(unit))
    least = [0, 1_380, 4_140] if unit == "W" else [0, 6, 8]
    asks = []
    for n in range(draw(st.integers(1, 8))):
        low = draw(st.sampled_from(least)) if minima else 0
        asks.append(
            Ask(
                id=f"a{n}",
                place=draw(st.sampled_from(tree)).id,
                max=low + draw(st.integers(1, 22_080 if unit == "W" else 63)),
                min=low,
                weight=draw(st.sampled_from([1, 1, 2, 3, 0.5])),
                priority=draw(st.integers(0, 2)),
                deadline=draw(st.none() | st.integers(0, 3)),
                phases=draw(st.sampled_from([(), ("L1",), ("L2",), ("L3", "L1"), ("L1", "L2", "L3")])),
                arrived=draw(st.none() | st.integers(-3, 3)),
                laxity_s=draw(st.none() | st.integers(-2, 5).map(lambda steps: steps * 150)),
                keep=keeping and draw(st.booleans()),
                voltage_v=draw(st.sampled_from([None, None, 240])),
                loose=draw(st.sampled_from([False, False, True])),
            )
        )
    return Problem(tree, tuple(asks), draw(st.sampled_from(policies)), unit, draw(st.sampled_from([0, 99])))


def loads(problem: Problem, filling: Filling) -> list[tuple[reference.Row, float]]:
    return [
        (row, sum(float(take) * filling.allocation[ask] for ask, take in row.takes.items())) for row in problem.rows()
    ]


@given(problems(keeping=True))
def test_every_share_equals_the_exact_reference(problem: Problem) -> None:
    filling = problem.solve()
    exact = reference.solve(problem.places, problem.asks, problem.policy, problem.unit, VOLTAGE_V)
    assert set(filling.not_admitted) == exact.refused
    for ask, share in exact.shares.items():
        assert filling.allocation[ask] == pytest.approx(float(share), abs=1e-6)


@given(problems())
def test_no_limit_is_exceeded_and_every_share_is_nothing_or_within_its_bounds(problem: Problem) -> None:
    filling = problem.solve()
    for row, load in loads(problem, filling):
        assert load <= float(row.room) + 1e-6, row.name
        assert filling.headroom[row.name] == pytest.approx(float(row.room))
    for ask in problem.asks:
        share = filling.allocation[ask.id]
        assert share == 0 or ask.min - 1e-9 <= share <= ask.max


@given(problems(keeping=True))
def test_what_exceeds_a_limit_is_a_named_violation_and_all_below_is_at_its_floor(problem: Problem) -> None:
    filling = problem.solve()
    violated = {f"{v.place}:{v.label}" for v in filling.violations}
    for row, load in loads(problem, filling):
        if load > float(row.room) + 1e-6:
            assert row.name in violated
        if row.name in violated:
            for ask in problem.asks:
                if ask.id in row.takes:
                    assert filling.allocation[ask.id] == (ask.min if ask.keep else 0)


@given(problems(policies=TOGETHER))
def test_every_share_has_a_certificate(problem: Problem) -> None:
    """The named limit is full, and nobody there has a higher level unless held up by its minimum."""
    filling = problem.solve()
    full = {row.name: (row, load) for row, load in loads(problem, filling)}
    level = {ask.id: problem.level(ask, filling.allocation[ask.id]) for ask in problem.asks}
    for ask in problem.asks:
        binding = filling.binding[ask.id]
        if binding.kind == "demand":
            assert filling.allocation[ask.id] == ask.max
        elif binding.kind == "not_admitted":
            assert ask.id in filling.not_admitted
        else:
            row, load = full[str(binding)]
            assert ask.id in row.takes
            assert load == pytest.approx(float(row.room), abs=1e-6)
            for other in problem.asks:
                if other.id in row.takes and filling.allocation[other.id] > other.min + 1e-9:
                    assert level[other.id] <= level[ask.id] + 1e-6


@given(problems(), st.sampled_from([0.5, 2, 16, 1000]))
def test_a_problem_in_other_units_has_the_same_answer(problem: Problem, scale: float) -> None:
    def scaled(values: tuple[Limit, ...]) -> tuple[Limit, ...]:
        return tuple(Limit(limit.label, limit.value * scale) for limit in values)

    other = replace(
        problem,
        places=tuple(
            replace(
                place,
                limits_w=scaled(place.limits_w),
                limits_a={phase: scaled(values) for phase, values in place.limits_a.items()},
                fixed_w=place.fixed_w * scale,
                fixed_a={phase: value * scale for phase, value in place.fixed_a.items()},
            )
            for place in problem.places
        ),
        asks=tuple(replace(ask, max=ask.max * scale, min=ask.min * scale) for ask in problem.asks),
    )
    one, many = problem.solve(), other.solve()
    assert one.not_admitted == many.not_admitted
    for ask, share in one.allocation.items():
        assert many.allocation[ask] == pytest.approx(share * scale, abs=1e-6 * scale)


@given(problems(keeping=True), st.randoms(use_true_random=False))
def test_the_order_of_places_and_asks_means_nothing(problem: Problem, chance: random.Random) -> None:
    shuffled = replace(
        problem,
        places=tuple(chance.sample(problem.places, len(problem.places))),
        asks=tuple(chance.sample(problem.asks, len(problem.asks))),
    )
    one, other = problem.solve(), shuffled.solve()
    assert one.not_admitted == other.not_admitted
    for ask, share in one.allocation.items():
        assert other.allocation[ask] == pytest.approx(share, abs=1e-6)


@given(problems(keeping=True), problems(keeping=True), st.data())
def test_what_a_workspace_remembers_changes_no_answer(problem: Problem, other: Problem, data: st.DataObject) -> None:
    """Limits, loads and asks come and go, each time other ones; places alone stay."""
    workspace = Workspace(problem.places, problem.few)
    for _ in range(4):
        places = tuple(
            replace(place, fixed_w=data.draw(st.sampled_from([place.fixed_w, 700.0])))
            if data.draw(st.booleans())
            else place
            for place in problem.places
        )
        if data.draw(st.booleans()):
            places = (replace(places[0], limits_w=data.draw(limits(("limit_w", "envelope_w"), 60_000))), *places[1:])
        spot = st.sampled_from([place.id for place in places])
        asks = tuple(
            data.draw(
                st.sampled_from([ask, replace(ask, min=0), replace(ask, max=ask.max + 7), replace(ask, phases=("L1",))])
            )
            for ask in data.draw(st.sampled_from([problem.asks, problem.asks[1:]]))
        )
        asks += tuple(
            replace(ask, id=f"b{ask.id}", place=data.draw(spot)) for ask in other.asks if data.draw(st.booleans())
        )
        changed = replace(problem, places=places, asks=asks, policy=data.draw(st.sampled_from(tuple(Policy))))
        assert changed.solve(workspace) == changed.solve()


@given(problems(policies=FAIR), st.data())
def test_lowering_a_limit_never_raises_the_smallest_level(problem: Problem, data: st.DataObject) -> None:
    """Invariant 4; read the other way round, raising one never lowers it."""
    limited = [n for n, place in enumerate(problem.places) if place.limits_w]
    assume(limited)
    chosen = data.draw(st.sampled_from(limited))
    lower = data.draw(st.integers(0, int(problem.places[chosen].limits_w[0].value)))
    place = problem.places[chosen]
    tighter = replace(place, limits_w=(Limit(place.limits_w[0].label, lower), *place.limits_w[1:]))
    other = replace(problem, places=(*problem.places[:chosen], tighter, *problem.places[chosen + 1 :]))
    before, after = problem.solve(), other.solve()
    assume(before.not_admitted == after.not_admitted)

    def smallest(filling: Filling) -> float:
        inside = [ask for ask in problem.asks if ask.id not in filling.not_admitted]
        return min((problem.level(ask, filling.allocation[ask.id]) for ask in inside), default=0.0)

    assert smallest(after) <= smallest(before) + 1e-6


@given(problems(units=("W",), minima=False), st.data())
def test_at_a_single_place_nobody_loses_when_another_leaves(problem: Problem, data: st.DataObject) -> None:
    """Invariant 6."""
    only = replace(problem, places=problem.places[:1], asks=tuple(replace(a, place="n0") for a in problem.asks))
    leaver = data.draw(st.sampled_from(only.asks))
    rest = replace(only, asks=tuple(ask for ask in only.asks if ask is not leaver))
    before, after = only.solve(), rest.solve()
    for ask in rest.asks:
        assert after.allocation[ask.id] >= before.allocation[ask.id] - 1e-6


@given(problems(units=("W",)))
def test_whole_watts_keep_every_limit_and_every_minimum(problem: Problem) -> None:
    filling = problem.solve()
    whole = round_down(filling)
    for ask in problem.asks:
        assert whole[ask.id] == 0 or ask.min <= whole[ask.id] <= ask.max
        assert filling.allocation[ask.id] - 1 < whole[ask.id] <= filling.allocation[ask.id] + 1e-6
    for row in problem.rows():
        assert sum(whole[ask] for ask in row.takes) <= row.room


def random_tree(chance: random.Random) -> CompiledTree:
    """Up to 40 places with one root or two, of any shape."""
    places = [Place("p0", None)]
    places += [Place(f"p{n}", f"p{chance.randrange(n)}") for n in range(1, chance.randint(1, 40))]
    places += [Place("q", None)] * chance.randint(0, 1)
    return CompiledTree(places)


def random_asked(chance: random.Random, count: int) -> Rise:
    low = np.array([chance.choice([0.0, 0.0, 1_380.0]) for _ in range(count)])
    return Rise(
        low=low,
        high=low + np.array([float(chance.randint(0, 22_080)) for _ in range(count)]),
        weight=np.array([chance.choice([0.5, 1.0, 3.0]) for _ in range(count)]),
        start=np.array([chance.choice([0.0, 0.0, 900.0, 5_000.0]) for _ in range(count)]),
    )


@given(st.integers(0, 2**32))
def test_a_repaired_filling_is_a_new_one(seed: int) -> None:
    """A room, a maximum or a minimum changes at one place; the rest is repaired, and equals a filling from nothing."""
    chance = random.Random(seed)
    tree = random_tree(chance)
    at = np.array([chance.randrange(len(tree.ids)) for _ in range(chance.randint(0, 60))], dtype=np.intp)
    asked, seats = random_asked(chance, len(at)), tree.seat(at)
    room = np.array([chance.choice([np.inf, 9_000.0, 60_000.0, 400_000.0]) for _ in tree.ids])
    held = HeldFilling(tree, at, room, asked)
    for _ in range(6):
        place = chance.randrange(len(tree.ids))
        if chance.random() < 0.5:
            room[place] = chance.choice([np.inf, 0.0, 9_000.0, 30_000.0, 200_000.0])
        for ask in np.flatnonzero(at == place).tolist():
            asked.high[ask] = asked.low[ask] + chance.randint(0, 22_080)
        looked_at = set(held.repair(place).tolist())
        given, stop = tree.fill(seats, room, asked)
        assert held.given == pytest.approx(given, abs=1e-6)
        assert held.bottleneck.tolist() == stop.tolist()
        assert looked_at >= set(np.flatnonzero(at == place).tolist())


def test_a_repair_below_a_slack_site_looks_at_its_own_feeder_alone() -> None:
    tree = CompiledTree([Place("site", None), Place("f", "site"), Place("g", "site")])
    at = np.array([1, 1, 2, 2], dtype=np.intp)
    asked = Rise(low=np.zeros(4), high=np.full(4, 10.0), weight=np.ones(4), start=np.zeros(4))
    held = HeldFilling(tree, at, np.array([100.0, 12.0, 50.0]), asked)
    asked.high[0] = 2.0
    assert held.repair(1).tolist() == [0, 1]
    assert held.given.tolist() == [2, 10, 10, 10]
    held.headroom[0] = 24.0
    assert held.repair(0).tolist() == [0, 1, 2, 3]
    asked.high[0] = 10.0
    assert held.repair(1).tolist() == [0, 1, 2, 3], "the site is full now"
    assert held.given.tolist() == [6, 6, 6, 6]


@pytest.mark.parametrize("seed", range(3))
def test_a_compiled_tree_gives_what_the_reference_gives_for_a_fleet(seed: int) -> None:
    chance = random.Random(seed)
    tree = [Place("site", None, (Limit("limit_w", 250_000),))]
    tree += [Place(f"c{n}", "site", (Limit("limit_w", chance.randint(10_000, 60_000)),)) for n in range(8)]
    asks = [
        Ask(f"a{n:03}", f"c{n % 8}", chance.randint(4_140, 22_080), chance.choice([0, 1_380]), chance.randint(1, 4))
        for n in range(64)
    ]
    exact = reference.solve(tree, asks, Policy.WEIGHTED, "W", VOLTAGE_V)
    compiled = CompiledTree(tree)
    given, stop = compiled.fill(
        compiled.seat(np.array([compiled.at(ask.place) for ask in asks])),
        headroom=np.array([place.limits_w[0].value for place in tree], dtype=np.float64),
        asked=Rise(
            low=np.array([ask.min for ask in asks], dtype=np.float64),
            high=np.array([ask.max for ask in asks], dtype=np.float64),
            weight=np.array([ask.weight for ask in asks], dtype=np.float64),
            start=np.zeros(len(asks)),
        ),
    )
    assert exact.refused == frozenset()
    assert given == pytest.approx([float(exact.shares[ask.id]) for ask in asks], abs=1e-6)
    assert {compiled.ids[at] for at in stop.tolist() if at >= 0} <= {"site", *(f"c{n}" for n in range(8))}
