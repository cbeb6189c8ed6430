"""The allocator's fillings on compiled columns: whole fleets, all phases with minima, one feeder alone.

Baselines: the level that rises in plain Python; for one feeder, filling the whole site anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

import numpy as np

from gateway.domain.allocation import (
    Ask,
    CompiledTree,
    HeldFilling,
    Limit,
    Place,
    Policy,
    Rise,
    Workspace,
    allocate,
)
from gateway.domain.allocation.admission import admit
from gateway.domain.allocation.arrays import FloatArray
from gateway.domain.allocation.rows import fill_rows
from tests.bench.bench_allocator import depot, plain_filling
from tests.bench.figures import milliseconds

RUNS = 9
PER_FEEDER, PER_CIRCUIT = 200, 20


def run() -> list[str]:
    """Lines: the tree at two sizes, phases at two sizes, one feeder, and from objects to answer."""
    return [*_trees(), *_phases(), _one_feeder(), _from_objects()]


def _timed(*ways: Callable[[], object]) -> list[list[float]]:
    """Seconds of every way, the ways in turn."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(RUNS):
        for way, taken in zip(ways, times, strict=True):
            start = perf_counter()
            way()
            taken.append(perf_counter() - start)
    return times


def _columns(asks: list[Ask]) -> Rise:
    return Rise(
        low=np.array([ask.min for ask in asks], dtype=np.float64),
        high=np.array([ask.max for ask in asks], dtype=np.float64),
        weight=np.array([ask.weight for ask in asks], dtype=np.float64),
        start=np.zeros(len(asks)),
    )


def _fill_of(places: list[Place], asks: list[Ask]) -> Callable[[], FloatArray]:
    """What fills a site on which only power is limited, compiled beforehand."""
    tree = CompiledTree(places)
    seats = tree.seat(np.array([tree.at(ask.place) for ask in asks], dtype=np.intp))
    room = np.array([place.limits_w[0].value for place in places], dtype=np.float64)
    asked = _columns(asks)
    return lambda: tree.fill(seats, room, asked)[0]


def _trees() -> list[str]:
    places, asks = depot(10_000, random.Random(10_000))
    small, large = _fill_of(places, asks), _fill_of(*depot(100_000, random.Random(100_000)))
    few, many, plain = _timed(small, large, lambda: plain_filling(places, asks))
    if not np.allclose(small(), plain_filling(places, asks), atol=1e-3):
        raise AssertionError("the baseline and the allocator do not solve the same problem")
    return [
        f"refill, power, 10,000 EVSEs: {milliseconds(few)}; plain Python {milliseconds(plain)}; "
        f"ratio {median(plain) / median(few):.0f} (goal: < 4 ms)",
        f"refill, power, 100,000 EVSEs: {milliseconds(many)}, {median(many) / median(few):.1f} times the 10,000 "
        "(goals: < 50 ms, < 12 times)",
    ]


def _phased(size: int) -> tuple[list[Place], list[Ask]]:
    """Site, feeders of 200, circuits of 20, each with limits on power and on every phase; minima of 6 A."""
    chance = random.Random(size)
    feeders, circuits = max(size // PER_FEEDER, 1), size // PER_CIRCUIT
    places = [Place("site", None, (Limit("limit_w", 2_600 * size),), _amperes(4.2 * size))]
    for n in range(feeders):
        limit_w = Limit("limit_w", chance.randint(350_000, 800_000))
        places.append(Place(f"f{n}", "site", (limit_w,), _amperes(chance.randint(500, 1_300))))
    for n in range(circuits):
        limit_w = Limit("limit_w", chance.randint(30_000, 120_000))
        places.append(Place(f"c{n}", f"f{n % feeders}", (limit_w,), _amperes(chance.randint(63, 160))))
    phases = [("L1",), ("L2",), ("L3",), ("L1", "L2", "L3")]
    asks = [
        Ask(f"e{n}", f"c{n % circuits}", chance.choice([16, 32]), 6, chance.randint(1, 3), phases=chance.choice(phases))
        for n in range(size)
    ]
    return places, asks


def _amperes(value: float) -> dict[str, tuple[Limit, ...]]:
    return {phase: (Limit(f"limit_a:{phase}", value),) for phase in ("L1", "L2", "L3")}


def _phases() -> list[str]:
    places, asks = _phased(10_000)
    lines = []
    for words, some in (("all minima fit", _with_minima(asks, 1)), ("minima of 6 A crowd", asks)):
        fit, fill, refused = _admit_and_fill(places, some)
        admitting, filling = _timed(fit, fill)
        total = [one + other for one, other in zip(admitting, filling, strict=True)]
        lines.append(
            f"refill, phases, power and minima, 10,000 EVSEs, {words} ({refused} refused): {milliseconds(total)}, "
            f"of it admission {1_000 * median(admitting):.1f} ms (goal: < 25 ms)"
        )
    places, asks = _phased(400)
    arrays, loops = _timed(
        lambda: allocate(places, asks, Policy.WEIGHTED, unit="A", workspace=Workspace(places, few=0)),
        lambda: allocate(places, asks, Policy.WEIGHTED, unit="A", workspace=Workspace(places, few=400)),
    )
    lines.append(
        f"refill, the same, 400 EVSEs, from objects: {milliseconds(arrays)}; plain Python {milliseconds(loops)}; "
        f"ratio {median(loops) / median(arrays):.1f}"
    )
    return lines


def _with_minima(asks: list[Ask], amperes: float) -> list[Ask]:
    return [replace(ask, min=amperes) for ask in asks]


def _admit_and_fill(places: list[Place], asks: list[Ask]) -> tuple[Callable[[], object], Callable[[], object], int]:
    """Both steps on compiled columns, and how many are refused."""
    workspace = Workspace(places)
    rows = workspace.rows(places, 230.0)
    asked = workspace.asked(asks, rows, "A", 230.0)
    weight, start = asked.lines(Policy.WEIGHTED, 300.0)

    def fit() -> list[int]:
        return admit(
            asked.incidence, rows.room, asked.mins, asked.keep, lambda some: sorted(some, key=asked.ids.__getitem__)
        )

    refused = fit()
    admitted = np.ones(len(asks), dtype=np.bool_)
    admitted[refused] = False
    rise = Rise(np.where(admitted, asked.mins, 0.0), np.where(admitted, asked.caps, 0.0), weight, start)
    return fit, lambda: fill_rows(asked.incidence, rows.room, rise), len(refused)


def _one_feeder() -> str:
    """Fifty feeders of 200 below a site with slack; every time the limit of another one changes."""
    chance = random.Random(3)
    feeders = 10_000 // PER_FEEDER
    places = [Place("site", None), *(Place(f"f{n}", "site") for n in range(feeders))]
    places += [Place(f"e{n}", f"f{n % feeders}") for n in range(10_000)]
    asks = [Ask(f"e{n}", f"e{n}", chance.randint(3_680, 22_080), weight=chance.randint(1, 3)) for n in range(10_000)]
    tree = CompiledTree(places)
    at = np.array([tree.at(ask.place) for ask in asks], dtype=np.intp)
    room = np.array([np.inf, *(chance.randint(700_000, 1_800_000) for _ in range(feeders)), *(22_080.0,) * 10_000])
    room[0] = 200_000_000.0
    asked, seats = _columns(asks), tree.seat(at)
    held = HeldFilling(tree, at, room, asked)
    for feeder in range(1, feeders + 1):
        held.repair(feeder)

    def repair() -> None:
        feeder = chance.randint(1, feeders)
        room[feeder] = chance.randint(700_000, 1_800_000)
        held.repair(feeder)

    repaired, whole = _timed(repair, lambda: tree.fill(seats, room, asked))
    if not np.allclose(held.given, tree.fill(seats, room, asked)[0], atol=1e-3):
        raise AssertionError("the repaired filling is not the filling")
    return (
        f"refill, one feeder of 200 in 10,000 EVSEs, slack above: {milliseconds(repaired)}; whole site "
        f"{milliseconds(whole)}; ratio {median(whole) / median(repaired):.0f} (goal: < 0.3 ms)"
    )


def _from_objects() -> str:
    """From places and asks to bindings in words, of which one feeder's limit is another every time."""
    places, asks = depot(10_000, random.Random(10_000))
    workspace, chance = Workspace(places), random.Random(5)

    def changed() -> list[Place]:
        n = chance.randint(1, 500)
        places[n] = replace(places[n], limits_w=(Limit("limit_w", chance.randint(20_000, 140_000)),))
        return places

    warm, cold = _timed(
        lambda: allocate(changed(), asks, Policy.WEIGHTED, workspace=workspace),
        lambda: allocate(changed(), asks, Policy.WEIGHTED),
    )
    return (
        f"refill, allocate() on 10,000 EVSEs with a workspace: {milliseconds(warm)}; without {milliseconds(cold)}; "
        f"ratio {median(cold) / median(warm):.1f}"
    )
