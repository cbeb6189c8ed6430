"""``python -m tests.vectors FILE``: a line per failing case, then ``N passed, N failed``.

A ``.csv`` is a month of sessions: the scoreboard of the policies is printed first.

Exits 0 when all pass, 1 when one fails, 2 when the file cannot be read or has an unknown format.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.domain.errors import GatewayError
from tests.vectors import allocation, caltech

CHECKS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {allocation.FORMAT: allocation.failures}


def run(path: str) -> int:
    """Check a file; the exit code."""
    if path.endswith(".csv"):
        return run_month(Path(path))
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except (OSError, ValueError) as problem:
        print(f"{path}: {problem}", file=sys.stderr)
        return 2
    named = document.get("format") if isinstance(document, dict) else None
    check = CHECKS.get(str(named))
    if check is None:
        print(f"{path}: unknown format {named!r}; known: {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    cases = document.get("cases", [])
    failed = 0
    for number, case in enumerate(cases):
        problems = _problems(check, case)
        if problems:
            failed += 1
            print(f"{case.get('id', f'#{number}')}: {'; '.join(problems)}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


def run_month(path: Path) -> int:
    """Check a month of sessions; the exit code."""
    try:
        boards = list(caltech.report(path))
    except (OSError, KeyError, ValueError) as problem:
        print(f"{path}: no month of sessions: {problem!r}", file=sys.stderr)
        return 2
    problems = [problem for board in boards for problem in board.problems]
    print(*(line for board in boards for line in board.lines), *problems, sep="\n")
    failed = sum(bool(board.problems) for board in boards)
    print(f"{len(boards) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _problems(check: Callable[[Mapping[str, Any]], list[str]], case: Mapping[str, Any]) -> list[str]:
    try:
        return check(case)
    except (GatewayError, KeyError, TypeError, ValueError) as problem:
        return [f"{type(problem).__name__}: {problem}"]


def main(arguments: list[str]) -> int:
    """The command."""
    if len(arguments) != 1:
        print("usage: python -m tests.vectors FILE", file=sys.stderr)
        return 2
    return run(arguments[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
