"""Sharing a site among 100 cars under 18 limits on phases, against acnportal's RoundRobin at 0.1 A, its default.

Both do the same: equal shares per phase current, the peer to one increment. Runs alternate, each in its own process.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from gateway.domain.allocation import Ask, Limit, Place, Policy, Rise, Workspace, allocate
from gateway.domain.allocation.model import PHASES
from gateway.domain.allocation.rows import fill_rows
from tests.bench.figures import milliseconds
from tests.vectors.folder import ROOT

PYTHON = ROOT / ".peers" / "acnportal" / "bin" / "python"
SCRIPT = Path(__file__).with_name("acnportal_sharing.py")
CARS, FEEDERS, RUNS, INCREMENT_A = 100, 5, 5, 0.1
MAX_A = 32.0


def run() -> list[str]:
    """A line, or why there is none."""
    if not PYTHON.is_file():
        return ["sharing: no acnportal; `sh tests/bench/install_acnportal.sh` installs it"]
    places, asks = _site(random.Random(7))
    workspace = Workspace(places)
    theirs, front, filled = [], [], []
    fill = _compiled(places, asks)
    with subprocess.Popen(
        [str(PYTHON), "-W", "ignore", str(SCRIPT), json.dumps(_described(places, asks))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as peer:
        for _ in range(RUNS):
            answer = _answer(peer)
            theirs.append(float(answer["seconds"]))
            start = perf_counter()
            filling = allocate(places, asks, Policy.EQUAL, unit="A", workspace=workspace)
            front.append(perf_counter() - start)
            start = perf_counter()
            fill()
            filled.append(perf_counter() - start)
            _compare(answer["amperes"], filling.allocation)
    times = {"allocate()": front, "compiled fill": filled}
    ours = "; ".join(
        f"{name} {milliseconds(taken)}, ratio {median(theirs) / median(taken):,.0f}" for name, taken in times.items()
    )
    return [
        f"sharing, {CARS} cars, {3 * (FEEDERS + 1)} limits: acnportal RoundRobin {INCREMENT_A} A "
        f"{milliseconds(theirs)}; {ours} (goal: > 5,000)"
    ]


def _site(chance: random.Random) -> tuple[list[Place], list[Ask]]:
    """A site and five feeders, each limited on three phases; cars on one phase each."""
    site_a = 3.8 * CARS
    places = [Place("site", None, limits_a=_limits(site_a, site_a, site_a))]
    places += [
        Place(f"f{n}", "site", limits_a=_limits(*(float(chance.randint(60, 160)) for _ in PHASES)))
        for n in range(FEEDERS)
    ]
    return places, [Ask(f"e{n}", f"f{n % FEEDERS}", MAX_A, phases=(PHASES[n % 3],)) for n in range(CARS)]


def _limits(*amperes: float) -> dict[str, tuple[Limit, ...]]:
    return {phase: (Limit(f"limit_a:{phase}", value),) for phase, value in zip(PHASES, amperes, strict=True)}


def _described(places: Sequence[Place], asks: Sequence[Ask]) -> dict[str, Any]:
    """The same site in the peer's words."""
    constraints = [
        {
            "evses": [ask.id for ask in asks if ask.phases == (phase,) and place.id in ("site", ask.place)],
            "limit_a": limits[0].value,
        }
        for place in places
        for phase, limits in place.limits_a.items()
    ]
    evses = [{"name": ask.id, "phase": PHASES.index(ask.phases[0]), "max_a": ask.max} for ask in asks]
    return {"increment_a": INCREMENT_A, "evses": evses, "constraints": constraints}


def _compiled(places: Sequence[Place], asks: Sequence[Ask]) -> Callable[[], object]:
    workspace = Workspace(places)
    rows = workspace.rows(places, 230.0)
    asked = workspace.asked(asks, rows, "A", 230.0)
    weight, start = asked.lines(Policy.EQUAL, 300.0)
    rise = Rise(asked.mins, asked.caps, weight, start)
    return lambda: fill_rows(asked.incidence, rows.room, rise)


def _answer(peer: subprocess.Popen[str]) -> dict[str, Any]:
    if peer.stdin is None or peer.stdout is None:
        raise AssertionError("the peer was started with pipes")
    peer.stdin.write("\n")
    peer.stdin.flush()
    answer: dict[str, Any] = json.loads(peer.stdout.readline())
    return answer


def _compare(theirs: Mapping[str, float], ours: Mapping[str, float]) -> None:
    """Equal but for what increments leave over, which the peer deals out to a few."""
    furthest = max(abs(theirs[name] - ours[name]) for name in ours)
    if theirs.keys() != ours.keys() or furthest > 2 * INCREMENT_A:
        raise AssertionError(f"the peer and the allocator do not solve the same problem: {furthest:.2f} A apart")
