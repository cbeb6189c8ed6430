"""What the keys of one node say against each other. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from gateway.config.document import NodeRow
from gateway.config.problems import Place, Problems

_LEAP_YEAR = 2000


def check_node(place: Place, row: NodeRow, problems: Problems) -> None:
    """Note everything in the row that cannot be, or that is never looked at."""
    for index, season in enumerate(row.derate_seasons):
        for key in ("start", "end"):
            _day((*place, "derate_seasons", index, key), getattr(season, key), problems)
    _once((*place, "derate_heat"), "above_c", (f"{heat.above_c:g}" for heat in row.derate_heat), problems)
    _once((*place, "reserve_profile"), "start", (step.start for step in row.reserve_profile), problems)
    if row.reserve_profile and row.reserve_w:
        _unused((*place, "reserve_w"), "reserve_profile says what is kept free at any time", problems)
    if row.assumed_pf is not None and row.apparent_max_va is None:
        _unused((*place, "assumed_pf"), "it is looked at with apparent_max_va alone", problems)
    limited = row.apparent_max_va is not None or row.import_max_a is not None
    if not limited and row.import_max_w is None and row.export_max_w is None:
        for key in ("derate", "derate_seasons", "derate_heat"):
            if getattr(row, key):
                _unused((*place, key), "there is no limit here that it could lower", problems)


def _day(place: Place, text: str, problems: Problems) -> None:
    try:
        date(_LEAP_YEAR, int(text[:2]), int(text[3:]))
    except ValueError:
        problems.add("date", place, "expected a day that is in the calendar, as MM-DD", found=text)


def _once(place: Place, key: str, values: Iterable[str], problems: Problems) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            problems.add("duplicate", (*place, index, key), "it is there twice; which one holds?", found=value)
        seen.add(value)


def _unused(place: Place, why: str, problems: Problems) -> None:
    problems.add("unused-key", place, why, suggestion="leave it out")
