"""Lives of a whole gateway in a faulty world: what was promised is kept, whatever happens.

The real controller, runner, store and adapters under a virtual clock. The plain run lives a few; the
slow one as many as ``GRIDGATE_SIMULATION_S`` seconds hold, other ones for each commit.
"""

from __future__ import annotations

import ast
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation import oracle
from tests.simulation.mutants import MUTANTS
from tests.simulation.world import FAULTS, World

PLAIN = range(8)
ONCE_BROKEN = (148, 579)
"""Worlds that found a mistake of the gateway, as long as worlds are drawn as they are."""

SECONDS = float(os.environ.get("GRIDGATE_SIMULATION_S", "60"))
LEAST = 60
"""Lives after which every fault must have happened, however short the time."""

PATIENCE = 40
"""Lives after which a mutant counts as unnoticed."""


def first_seed() -> int:
    """Another one for each commit, so that CI lives other lives each time; clear of the plain ones."""
    given = os.environ.get("GRIDGATE_COMMIT", "")
    if not given:
        command = ["git", "rev-parse", "HEAD"]
        here = Path(__file__).parent
        given = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False).stdout
    return 1_000 * (1 + int(given.strip()[:7] or "0", 16))


def lived(seed: int) -> World:
    world = World(seed).live()
    assert not world.verdict, f"{world.verdict}\nagain: .venv/bin/python -m tests.simulation {seed} --story"
    return world


@pytest.mark.parametrize("seed", [*PLAIN, *ONCE_BROKEN])
def test_a_whole_gateway_keeps_its_promises_in_a_faulty_world(seed: int) -> None:
    assert lived(seed).steps > 20, "too little happens to mean anything"


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
def test_every_fault_happens_in_many_worlds_and_breaks_no_promise(capsys: pytest.CaptureFixture[str]) -> None:
    first, ends = first_seed(), time.monotonic() + SECONDS
    happened: Counter[str] = Counter()
    lives = 0
    while time.monotonic() < ends or lives < LEAST:
        happened.update(lived(first + lives).happened)
        lives += 1
    with capsys.disabled():
        print(f"\n{lives} lives from seed {first}: " + ", ".join(f"{happened[fault]} {fault}" for fault in FAULTS))
    assert not [fault for fault in FAULTS if not happened[fault]], "never happened"


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_gateway_that_breaks_a_rule_is_noticed(name: str) -> None:
    with MUTANTS[name]():
        assert any(World(seed).live().verdict for seed in range(PATIENCE)), f"unnoticed in {PATIENCE} lives"


def test_the_same_seed_is_the_same_life() -> None:
    one, other = World(3, length_s=400).live(), World(3, length_s=400).live()
    assert (one.story, one.happened, one.log) == (other.story, other.happened, other.log)
    assert len(one.log) > 20


def test_the_oracle_knows_nothing_of_the_gateway() -> None:
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "dataclasses", "tests.property.fleet_model"}
