"""The allocator on a site, circuits and EVSEs in W, against progressive filling in plain Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

from gateway.domain.allocation import Ask, CompiledTree, Limit, Place, Policy, Rise, allocate

SIZES = (100, 1_000, 10_000)
RUNS = 7
EVSES_PER_CIRCUIT = 20


def run() -> list[str]:
    """A line per size."""
    return [_compare(size) for size in SIZES]


def _compare(size: int) -> str:
    places, asks = depot(size, random.Random(size))
    tree = CompiledTree(places)
    seats = tree.seat(np.array([tree.at(ask.place) for ask in asks]))
    room = np.array([place.limits_w[0].value for place in places], dtype=np.float64)
    caps = np.array([ask.max for ask in asks], dtype=np.float64)
    weights = np.array([ask.weight for ask in asks], dtype=np.float64)
    rise = Rise(low=np.zeros(size), high=caps, weight=weights, start=np.zeros(size))
    ways: dict[str, Callable[[], object]] = {
        "compiled": lambda: tree.fill(seats, room, rise),
        "allocate": lambda: allocate(places, asks, Policy.WEIGHTED),
        "plain": lambda: plain_filling(places, asks),
    }
    given, _ = tree.fill(seats, room, rise)
    if not np.allclose(given, plain_filling(places, asks), atol=1e-3):
        raise AssertionError("the baseline and the allocator do not solve the same problem")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, way in ways.items():
            start = perf_counter()
            way()
            times[name].append(perf_counter() - start)
    ratio = {name: median(times["plain"]) / median(times[name]) for name in ("compiled", "allocate")}
    return (
        f"allocator, {size:6,} EVSEs: compiled fill {_shown(times['compiled'])}, "
        f"allocate() {_shown(times['allocate'])}, plain Python {_shown(times['plain'])}; "
        f"ratio {ratio['compiled']:.1f} and {ratio['allocate']:.1f}"
    )


def _shown(seconds: list[float]) -> str:
    low, middle, high = (f"{1_000 * value:.2f}" for value in (min(seconds), median(seconds), max(seconds)))
    return f"{middle} ms ({low} to {high})"


def depot(size: int, chance: random.Random) -> tuple[list[Place], list[Ask]]:
    """Three levels: a site, circuits of twenty, EVSEs with a limit of their own."""
    circuits = size // EVSES_PER_CIRCUIT
    places = [Place("site", None, (Limit("limit_w", 3_800 * size),))]
    places += [Place(f"c{n}", "site", (Limit("limit_w", chance.randint(20_000, 140_000)),)) for n in range(circuits)]
    places += [Place(f"e{n}", f"c{n % circuits}", (Limit("limit_w", 22_080),)) for n in range(size)]
    asks = [Ask(f"e{n}", f"e{n}", chance.randint(3_680, 22_080), weight=chance.randint(1, 3)) for n in range(size)]
    return places, asks


class _Plain:
    """Sums per place, kept up to date while asks stop."""

    def __init__(self, places: list[Place], asks: list[Ask]) -> None:
        self.asks = asks
        number = {place.id: n for n, place in enumerate(places)}
        self.above = [_path(places, number, ask) for ask in asks]
        self.left = [place.limits_w[0].value for place in places]
        self.slope = [0.0] * len(places)
        self.members: list[list[int]] = [[] for _ in places]
        for n, ask in enumerate(asks):
            for place in self.above[n]:
                self.slope[place] += ask.weight
                self.members[place].append(n)
        self.rising = {place for path in self.above for place in path}
        self.given: dict[int, float] = {}

    def lowest(self) -> tuple[float, int]:
        """The level of the place that fills next, and that place."""
        return min((self.left[place] / self.slope[place], place) for place in self.rising)

    def stop(self, n: int, value: float) -> None:
        """Fix what an ask gets."""
        if n in self.given:
            return
        self.given[n] = value
        for place in self.above[n]:
            self.left[place] -= value
            self.slope[place] -= self.asks[n].weight
            if self.slope[place] < 1e-9:
                self.rising.discard(place)


def plain_filling(places: list[Place], asks: list[Ask]) -> list[float]:
    """The common level rises to the next full place; who is full by then stops first."""
    state = _Plain(places, asks)
    waiting = sorted(range(len(asks)), key=lambda n: -asks[n].max / asks[n].weight)
    while state.rising:
        level, tightest = state.lowest()
        stopped = len(state.given)
        while waiting and asks[waiting[-1]].max <= level * asks[waiting[-1]].weight:
            full = waiting.pop()
            state.stop(full, asks[full].max)
        if len(state.given) == stopped:
            for n in state.members[tightest]:
                state.stop(n, level * asks[n].weight)
    return [state.given[n] for n in range(len(asks))]


def _path(places: list[Place], number: dict[str, int], ask: Ask) -> list[int]:
    path = []
    at: str | None = ask.place
    while at is not None:
        path.append(number[at])
        at = places[number[at]].parent
    return path
