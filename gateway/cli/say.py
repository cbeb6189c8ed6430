"""How every verb speaks: results on standard output, errors in one form, documented exit codes.

An error says what, where, why and what to do, with a stable code. Text from peers is escaped
before it reaches a terminal.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, ParamSpec

import typer

from gateway.domain.errors import ConfigError, ConfigProblem, DomainError, GatewayError

P = ParamSpec("P")


class Exit(IntEnum):
    """Exit codes (design, table of decisions)."""

    OK = 0
    FAILED = 1
    """It could not be done: store unreadable, gateway unreachable, nothing found."""
    USAGE = 2
    """Usage or configuration is wrong."""
    FOUND = 3
    """It was done and found problems: ``check``, ``doctor``, ``evidence verify``."""


class UsageError(GatewayError):
    """The command line asks for something that makes no sense."""

    code = "cli.usage"
    hint = "see --help"


class NotFound(GatewayError):
    """There is nothing under this name."""

    code = "cli.not-found"


DEBUG = "GRIDGATE_DEBUG"
"""Set in the environment, expected errors come with their stack trace."""


def verb(act: Callable[P, Exit | int]) -> Callable[P, None]:
    """A command that returns its exit code; expected errors become words instead of a stack trace."""

    @functools.wraps(act)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("json_output", False))
        try:
            code = int(act(*args, **kwargs))
        except GatewayError as problem:
            if os.environ.get(DEBUG):
                raise
            complain(problem, as_json=as_json)
            raise typer.Exit(code_of(problem)) from None
        raise typer.Exit(code)

    return wrapped


def code_of(problem: GatewayError) -> Exit:
    """The exit code that an error ends a verb with."""
    return Exit.USAGE if isinstance(problem, (ConfigError, UsageError, DomainError)) else Exit.FAILED


def complain(problem: GatewayError, *, as_json: bool) -> None:
    """Tell an error: as words on standard error, or as one JSON object on standard output."""
    if as_json:
        put_json({"error": error_document(problem)})
        return
    for line in error_lines(problem):
        print(line, file=sys.stderr)


def error_document(problem: GatewayError) -> dict[str, Any]:
    """An error as JSON; a configuration's mistakes each."""
    document: dict[str, Any] = {"code": problem.code, "message": str(problem), "hint": problem.hint}
    if isinstance(problem, ConfigError):
        document["problems"] = [problem_document(p) for p in problem.problems]
    return document


def problem_document(problem: ConfigProblem) -> dict[str, Any]:
    """One mistake of a configuration as JSON."""
    return {
        "code": problem.code,
        "file": problem.file,
        "line": problem.line,
        "key": problem.key,
        "message": problem.message,
        "found": problem.found,
        "suggestion": problem.suggestion,
    }


def error_lines(problem: GatewayError) -> list[str]:
    """An error in the form that people read."""
    lines: list[str] = []
    if isinstance(problem, ConfigError):
        for mistake in problem.problems:
            lines += problem_lines(mistake)
    else:
        first, *rest = printable_lines(str(problem))
        lines += [f"error  {problem.code}", f"       {first}", *(f"       {line}" for line in rest)]
    if problem.hint:
        lines.append(f"       do: {printable(problem.hint)}")
    return lines


def problem_lines(problem: ConfigProblem) -> list[str]:
    """One mistake of a configuration: code, place, what is wrong, what was meant."""
    place = f"{problem.file}:{problem.line}" if problem.line else problem.file
    where = ", ".join(part for part in (place, problem.key) if part)
    lines = [f"error  {problem.code:<27} {printable(where)}".rstrip()]
    lines += [f"       {line}" for line in printable_lines(problem.message)]
    if problem.found:
        lines.append(f"       found: {printable(problem.found)}")
    if problem.suggestion:
        lines.append(f"       {printable(_sentence(problem.suggestion))}")
    return lines


def put(text: str = "") -> None:
    """One line on standard output."""
    print(text)


def note(text: str) -> None:
    """One line on standard error: beside the result, not part of it."""
    print(text, file=sys.stderr)


def put_json(document: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(document, ensure_ascii=False, indent=2))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned columns; what looks like a number stands to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))] if rows else []
    return ["  ".join(_cell(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def watts(value: int | None) -> str:
    """``38 870 W``; a dash where nothing is known or stated."""
    return "-" if value is None else f"{value:,} W".replace(",", " ")


def printable(text: str) -> str:
    """Text without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def printable_lines(text: str) -> list[str]:
    """The same for text of several lines; at least one."""
    return [printable(line) for line in text.splitlines()] or [""]


def _cell(text: str, width: int) -> str:
    return text.rjust(width) if text[:1].isdigit() and text.endswith(" W") else text.ljust(width)


def _sentence(suggestion: str) -> str:
    return suggestion if " " in suggestion else f'Did you mean "{suggestion}"?'
