"""``python -m tests.bench [NAME...]`` runs every ``bench_*`` module here, or those named without the prefix.

A module has ``run() -> list[str]``: the lines to print.
"""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from pathlib import Path

PREFIX = "bench_"


def names() -> list[str]:
    """The modules found, without their prefix."""
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def main(chosen: list[str]) -> int:
    """Run and print; 2 when a name is unknown."""
    unknown = set(chosen) - set(names())
    if unknown:
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    print(f"# Python {platform.python_version()}, {platform.machine()}; median (lowest to highest)", flush=True)
    for name in chosen or names():
        for line in import_module(f"tests.bench.{PREFIX}{name}").run():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
