"""Fifty mistakes of many kinds in one file, drawn by a seed: all are told at once, each with line, value and remedy."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from ruamel.yaml import YAML

from gateway.domain.errors import ConfigProblem
from tests.unit.config.site_file import SiteFile, problems_of

ROWS = 60
MISTAKES = 50
SECRET = "hunter2-hunter2-hunter2"


@dataclass(frozen=True)
class Expected:
    """What has to be said about one mistake."""

    code: str
    key: str
    found: str = ""
    suggestion: str = ""


@dataclass
class Sheet:
    """The file as lines, each a list of what stands there now, so that places stay where they are."""

    lines: list[list[str]]
    expected: dict[tuple[int, int], Expected] = field(default_factory=dict)

    def at(self, section: str, row: int, key: str) -> int:
        """Index of the line of a key in a row of a section."""
        start = next(n for n, line in enumerate(self.lines) if line == [f"{section}:"])
        dashes = [n for n in range(start + 1, len(self.lines)) if self.lines[n] and self.lines[n][0].startswith("- ")]
        first = dashes[row]
        return next(n for n in range(first, len(self.lines)) if re.match(rf"(- |  ){key}:", self.lines[n][0]))

    def lead(self, at: int) -> str:
        return self.lines[at][0][:2]

    def change(self, at: int, *lines: str, wrong: int = 0, expected: Expected) -> None:
        """Put other lines there; ``wrong`` is the one of them that will be named."""
        self.lines[at] = list(lines)
        self.expected[at, wrong] = expected

    def text(self) -> str:
        return "".join(f"{line}\n" for lines in self.lines for line in lines)

    def by_line(self) -> dict[int, Expected]:
        """The same by number of line, from 1, as the file stands now."""
        before, out = 0, {}
        for index, lines in enumerate(self.lines):
            for (at, wrong), expected in self.expected.items():
                if at == index:
                    out[before + wrong + 1] = expected
            before += len(lines)
        return out


Kind = Callable[[Sheet, int, random.Random], None]
"""One mistake in the rows of one EVSE and its station."""


def _value(section: str, key: str, code: str, *values: str, suggestion: str = "") -> Kind:
    """Another value at a key."""

    def make(sheet: Sheet, row: int, chance: random.Random) -> None:
        at, value = sheet.at(section, row, key), chance.choice(values)
        expected = Expected(code, f"{section}[{row}].{key}", value.strip("'\""), suggestion)
        sheet.change(at, f"{sheet.lead(at)}{key}: {value}", expected=expected)

    return make


def _misspelt(section: str, key: str) -> Kind:
    def make(sheet: Sheet, row: int, chance: random.Random) -> None:
        at = sheet.at(section, row, key)
        place = chance.choice([n for n in range(1, len(key) - 1) if key[n] != key[n + 1]])
        wrong = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
        line = sheet.lines[at][0].replace(f"{key}:", f"{wrong}:")
        sheet.change(at, line, expected=Expected("unknown-key", f"{section}[{row}].{wrong}", suggestion=key))

    return make


def _gone(section: str, key: str) -> Kind:
    def make(sheet: Sheet, row: int, _chance: random.Random) -> None:
        sheet.lines[sheet.at(section, row, key)] = []
        first = next(n for n in range(len(sheet.lines)) if n == sheet.at(section, row, "node"))
        sheet.expected[first, 0] = Expected("missing-key", f"{section}[{row}].{key}")

    return make


def _twice(section: str, key: str) -> Kind:
    def make(sheet: Sheet, row: int, _chance: random.Random) -> None:
        at = sheet.at(section, row, key)
        line = sheet.lines[at][0]
        expected = Expected("duplicate-key", f"{section}[{row}].{key}", "first on line")
        sheet.change(at, line, f"  {line[2:]}", wrong=1, expected=expected)

    return make


def _serial_of_another(sheet: Sheet, row: int, _chance: random.Random) -> None:
    at, other = sheet.at("stations", row, "serial"), sheet.lines[sheet.at("stations", 0, "serial")][0]
    sheet.change(at, other, expected=Expected("duplicate", f"stations[{row}].serial", "also on line"))


def _station_nearby(sheet: Sheet, row: int, _chance: random.Random) -> None:
    at = sheet.at("evses", row, "station")
    name = sheet.lines[at][0].partition(": ")[2]
    expected = Expected("unknown-station", f"evses[{row}].station", f"{name}x", name)
    sheet.change(at, f"{sheet.lead(at)}station: {name}x", expected=expected)


def _node_elsewhere(sheet: Sheet, row: int, _chance: random.Random) -> None:
    at = sheet.at("evses", row, "node")
    line = sheet.lines[at][0].replace("main/garage/", f"main/garag{row}/")
    sheet.change(
        at, line, expected=Expected("topology-unknown-parent", f"evses[{row}].node", f"main/garag{row}", "main/garage")
    )


def _inline_secret(sheet: Sheet, row: int, _chance: random.Random) -> None:
    at = sheet.at("stations", row, "profile")
    line = sheet.lines[at][0]
    expected = Expected("inline-secret", f"stations[{row}].password", f"{len(SECRET)} characters", "chmod 600")
    sheet.change(at, line, f"  password: {SECRET}", wrong=1, expected=expected)


KINDS: dict[str, Kind] = {
    "a misspelt key of an EVSE": _misspelt("evses", "safe_share_w"),
    "a misspelt key of a station": _misspelt("stations", "rate_unit"),
    "a key that is missing": _gone("evses", "number"),
    "a key twice": _twice("evses", "max_a"),
    "a unit in a number": _value("evses", "max_a", "value", "32 A", "'16'", "ten"),
    "true for a number": _value("evses", "weight", "value", "true"),
    "a list for a number": _value("evses", "weight", "value", "[1, 2]"),
    "a fraction for whole watts": _value("evses", "safe_share_w", "value", "4600.5"),
    "a number too large": _value("evses", "number", "range", "1001", "70000"),
    "a number below zero": _value("evses", "min_a", "range", "-1", "-0.5"),
    "no number at all": _value("evses", "max_a", "value", ".nan", ".inf"),
    "a minimum above the maximum": _value("evses", "min_a", "topology-min-above-max", "33", "40.5"),
    "a key without a value": _value("evses", "weight", "empty-value", ""),
    "a YAML tag": _value("evses", "weight", "yaml-tag", "!heavy 3"),
    "a station that is none": _station_nearby,
    "a node under none": _node_elsewhere,
    "a listener that is none": _value("stations", "listener", "unknown-listener", "ocppp", suggestion="ocpp"),
    "a profile that is none": _value("stations", "profile", "range", "4", "-1"),
    "a profile that the listener cannot keep": _value("stations", "profile", "profile-trust", "0"),
    "a unit that is none": _value("stations", "rate_unit", "value", "kW", "V"),
    "a number for a serial": _value("stations", "serial", "value", "123456", suggestion="quotes"),
    "an identity with a slash": _value("stations", "meter_node", "value", "/main", "main//garage"),
    "a meter's node that is none": _value(
        "stations", "meter_node", "unknown-node", "main/garagee", suggestion="garage"
    ),
    "a serial twice": _serial_of_another,
    "a secret in the file": _inline_secret,
}
_IN_WORDS = frozenset({"topology-unknown-parent", "profile-trust"})
"""Where the message has the value."""
_WITHOUT = frozenset({"empty-value", "yaml-tag"})
"""Where there is no value that could be told."""


def a_large_sheet(depot: SiteFile) -> Sheet:
    """The depot with many more EVSEs, each with a station of its own; one key per line."""
    values = depot.values
    values["evses"] = [
        {
            "node": f"main/garage/evse-{n}",
            "station": f"CP-{n:03d}",
            "number": 1,
            "min_a": 6,
            "max_a": 32,
            "safe_share_w": 0,
            "weight": 1,
        }
        for n in range(ROWS)
    ]
    values["stations"] = [
        {
            "id": f"CP-{n:03d}",
            "serial": f"SN-{n:03d}",
            "listener": "ocpp",
            "profile": 3,
            "rate_unit": "A",
            "meter_node": "main/garage",
        }
        for n in range(ROWS)
    ]
    out = io.StringIO()
    yaml = YAML()
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(values, out)
    return Sheet([[line] for line in out.getvalue().splitlines()])


def says(problem: ConfigProblem, expected: Expected) -> bool:
    """Whether a problem is the expected one, with its value and its remedy."""
    quoted = problem.message if expected.code in _IN_WORDS else problem.found
    wanted = "a list of 2" if expected.found == "[1, 2]" else expected.found.removeprefix(".")
    wanted = "" if expected.code in _WITHOUT else wanted
    return (
        problem.code == f"config.{expected.code}"
        and problem.key == expected.key
        and wanted in quoted
        and expected.suggestion in problem.suggestion
        and bool(problem.message)
    )


def test_the_large_site_is_sound_before_it_is_broken(depot: SiteFile) -> None:
    sheet = a_large_sheet(depot)
    depot.path.write_text(sheet.text(), encoding="utf-8")
    assert len(depot.load().stations) == ROWS


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_alone_is_one_mistake(depot: SiteFile, name: str) -> None:
    sheet = a_large_sheet(depot)
    KINDS[name](sheet, 7, random.Random(1))
    [(line, expected)] = sheet.by_line().items()
    found = problems_of(depot.path, sheet.text())
    assert [p.line for p in found] == [line], found
    assert says(found[0], expected), (found[0], expected)


@pytest.mark.parametrize("seed", range(20))
def test_fifty_mistakes_are_told_at_once_each_with_its_line_and_value(depot: SiteFile, seed: int) -> None:
    chance = random.Random(seed)
    sheet = a_large_sheet(depot)
    rows = chance.sample(range(1, ROWS), MISTAKES)
    names = [*KINDS, *chance.choices(list(KINDS), k=MISTAKES - len(KINDS))]
    for row, name in zip(rows, names, strict=True):
        KINDS[name](sheet, row, chance)
    wanted = sheet.by_line()
    assert len(wanted) == MISTAKES
    found = problems_of(depot.path, sheet.text())
    assert [p.line for p in found] == sorted(wanted), [p for p in found if p.line not in wanted]
    unsaid = [(p, wanted[p.line]) for p in found if not says(p, wanted[p.line])]
    assert unsaid == []
    assert SECRET not in str(found)
