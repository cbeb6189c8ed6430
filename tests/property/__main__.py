"""Live a life again: ``python -m tests.property SEED [MUTANT]``. Exits 1 when a promise was broken."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from tests.property.lives import Life
from tests.property.mutants import MUTANTS


def main(arguments: list[str]) -> int:
    """The command."""
    known = "; ".join(MUTANTS)
    if not (1 <= len(arguments) <= 2) or not arguments[0].isdigit() or not set(arguments[1:]) <= set(MUTANTS):
        print(f"usage: python -m tests.property SEED [MUTANT]\nmutants: {known}", file=sys.stderr)
        return 2
    with MUTANTS[arguments[1]]() if arguments[1:] else nullcontext():
        life = Life(int(arguments[0])).live()
    print(f"{life.state.seq} steps; " + ", ".join(f"{n} {what}" for what, n in sorted(life.happened.items())))
    print(life.verdict or "kept")
    return 1 if life.verdict else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
