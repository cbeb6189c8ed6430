"""Random lives of a site against a physical fleet: what was promised is kept, whatever is lost.

``GRIDGATE_SEQUENCES`` lives in all; those beyond the first 500 are ``slow``.
"""

from __future__ import annotations

import ast
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.property import fleet_model
from tests.property.lives import EVENTS, Life
from tests.property.mutants import MUTANTS

PLAIN = 500
SEQUENCES = int(os.environ.get("GRIDGATE_SEQUENCES", str(PLAIN)))
BATCH = 25
"""Lives per test: enough to see how often a fault occurs, few enough for several workers."""

NEEDED = ("fallback", "restart", "lost decrease", "clock step")
ENOUGH = 0.1
"""Share of the lives in which each of them must occur."""

PATIENCE = 300
"""Lives after which a mutant counts as unnoticed."""

ONCE_BROKEN = (709, 2713, 3420, 4325, 9456)
"""Lives that found a mistake of the gateway or of the judge, as long as lives are drawn as they are."""

BATCHES = [
    pytest.param(range(first, min(first + BATCH, SEQUENCES)), marks=pytest.mark.slow if first >= PLAIN else ())
    for first in range(0, SEQUENCES, BATCH)
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seeds", BATCHES, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_limit_known_in_time_is_exceeded_whatever_is_lost(seeds: range) -> None:
    happened: Counter[str] = Counter()
    for seed in seeds:
        life = Life(seed).live()
        assert not life.verdict, f"{life.verdict}\nagain: .venv/bin/python -m tests.property {seed}"
        happened.update(dict.fromkeys(life.happened, 1))
    rare = {what: happened[what] for what in NEEDED if happened[what] < ENOUGH * len(seeds)}
    assert not rare, f"in {len(seeds)} lives too seldom: {rare}"


@pytest.mark.parametrize("seed", ONCE_BROKEN)
def test_a_life_that_once_broke_a_promise_keeps_it(seed: int) -> None:
    assert not Life(seed).live().verdict


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_gateway_that_breaks_a_rule_is_noticed(name: str) -> None:
    with MUTANTS[name]():
        assert any(Life(seed).live().broken for seed in range(PATIENCE)), f"unnoticed in {PATIENCE} lives"


def test_a_life_has_at_least_thirty_events() -> None:
    assert EVENTS >= 30


def test_the_same_seed_is_the_same_life() -> None:
    one, other = Life(7).live(), Life(7).live()
    assert (one.happened, one.state) == (other.happened, other.state)


def test_the_physical_model_shares_no_code_with_the_gateway() -> None:
    tree = ast.parse(Path(fleet_model.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [
        name
        for name in imported
        if name
        and not name.startswith(("collections", "dataclasses", "__future__"))
        and name not in ("heapq", "itertools")
    ]
