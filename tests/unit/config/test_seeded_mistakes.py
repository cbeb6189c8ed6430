"""Fifty mistakes at seeded places of a sound file: each is told with its line, value and the nearest name."""

from __future__ import annotations

import random
import re

import pytest

from tests.unit.config.site_file import SiteFile, problems_of

_LINE = re.compile(r"^(?P<lead>\s*(?:- )?)(?P<key>[a-z_]{4,}): (?P<value>[^\s#{\[][^#]*?)\s*$")


def places(text: str) -> list[int]:
    """Lines (from 0) of a key with a plain value, but for the adapters' own options."""
    found, section = [], ""
    for number, line in enumerate(text.splitlines()):
        if line[:1].isalpha():
            section = line.partition(":")[0]
        if section != "adapters" and _LINE.match(line):
            found.append(number)
    return found


def broken(text: str, number: int, chance: random.Random) -> tuple[str, str, bool]:
    """The text with one mistake on that line, the key there, and whether the key itself was misspelt."""
    lines = text.splitlines()
    match = _LINE.match(lines[number])
    assert match is not None
    key, value = match["key"], match["value"]
    if chance.random() < 0.5:
        at = chance.randrange(1, len(key) - 1)
        misspelt = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
        if misspelt != key:
            lines[number] = f"{match['lead']}{misspelt}: {value}"
            return "\n".join(lines), key, True
    lines[number] = f"{match['lead']}{key}: [[{value}]]"
    return "\n".join(lines), key, False


@pytest.mark.parametrize("seed", range(50))
def test_a_seeded_mistake_is_told_with_its_line_and_what_was_meant(depot: SiteFile, seed: int) -> None:
    text = depot.path.read_text(encoding="utf-8")
    chance = random.Random(seed)
    number = chance.choice(places(text))
    mistaken, key, is_misspelt = broken(text, number, chance)
    problems = problems_of(depot.path, mistaken)
    [here] = [p for p in problems if p.line == number + 1][:1]
    assert key in (here.suggestion if is_misspelt else here.key), here
    assert here.message
