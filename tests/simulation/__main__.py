"""Live a world again: ``python -m tests.simulation SEED``. Exits 1 when a promise was broken."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from tests.simulation.mutants import MUTANTS
from tests.simulation.world import World


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--story", action="store_true", help="tell what happened, second by second")
    parser.add_argument(
        "--keep", type=Path, help="leave the store in this new folder, for `gridgate evidence` and others"
    )
    parser.add_argument("--mutant", choices=MUTANTS, help="with a gateway that is broken on purpose")
    given = parser.parse_args(arguments)
    with MUTANTS[given.mutant]() if given.mutant else nullcontext():
        world = World(given.seed, keep=given.keep).live()
    if given.story:
        print(*world.story, sep="\n")
    print(f"{world.steps} steps; " + ", ".join(f"{n} {what}" for what, n in sorted(world.happened.items())))
    print(world.verdict or "kept")
    return 1 if world.verdict else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
