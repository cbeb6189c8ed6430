"""Mistakes of one configuration file, collected with their places. Quotes no secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from gateway.domain.errors import ConfigError, ConfigProblem

Place = tuple[str | int, ...]
"""Where a value stands: keys and indices from the document's root."""

MAX_PROBLEMS = 200
"""Most mistakes that are listed; more than this is a wrong file rather than a wrong line."""

MAX_SHOWN = 80
"""Longest value that is quoted; names and paths of people fit, keys and certificates do not."""

_SECRET_WORDS = ("token", "password", "secret", "passphrase")


class Problems:
    """Collects; ``lines`` says on which line (from 1) a place stands."""

    def __init__(self, file: str, lines: Mapping[Place, int]) -> None:
        self._file = file
        self._lines = lines
        self._found: list[ConfigProblem] = []
        self._places: set[Place] = set()

    def add(
        self,
        code: str,
        place: Place,
        message: str,
        *,
        found: str = "",
        suggestion: str = "",
        line: int | None = None,
    ) -> None:
        """One mistake at ``place``; where that is not in the file, the line of what surrounds it."""
        if code == "missing-key" and self.stands_at(place):
            # Something is there and wrong, which has been said.
            return
        line = self.line(place) if line is None else line
        self._places.add(place)
        self._found.append(ConfigProblem(f"config.{code}", self._file, line, dotted(place), message, found, suggestion))

    def cover(self, place: Place) -> None:
        """What is missing at ``place`` has been said: a misspelt key beside it explains it."""
        self._places.add(place)

    def stands_at(self, place: Place) -> bool:
        """Whether a mistake was found, or is explained, exactly there."""
        return place in self._places

    def line(self, place: Place) -> int:
        """The line of ``place`` or of the nearest thing around it; 0 for the file as a whole."""
        while place not in self._lines and place:
            place = place[:-1]
        return self._lines.get(place, 0)

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(self) -> ConfigError:
        """All of them, from the first line to the last."""
        ordered = sorted(self._found, key=lambda problem: problem.line)
        if len(ordered) > MAX_PROBLEMS:
            rest = f"and {len(ordered) - MAX_PROBLEMS} more mistakes"
            ordered[MAX_PROBLEMS:] = [ConfigProblem("config.too-many", self._file, 0, "", rest)]
        return ConfigError(tuple(ordered))


def dotted(place: Place) -> str:
    """A place as people write it: ``bindings[0].on_loss``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def closest(word: object, known: Iterable[str]) -> str:
    """The one of ``known`` that ``word`` may stand for; empty where nothing is close."""
    matches = get_close_matches(str(word), sorted(known), n=1, cutoff=0.6)
    return matches[0] if matches else ""


def nearest(word: object, known: Iterable[str]) -> str:
    """``did you mean …`` for the closest of ``known``, empty where nothing is close."""
    match = closest(word, known)
    return f"did you mean {match}?" if match else ""


def shown(value: Any, place: Place = ()) -> str:
    """A value for a message; of a secret, or of what looks like one, only its length."""
    if isinstance(value, dict | list | tuple):
        kind = "mapping" if isinstance(value, dict) else "list"
        return f"a {kind} of {len(value)}"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if is_secret(place) or len(text) > MAX_SHOWN or not text.isprintable():
        return f"{len(text)} characters"
    return text


def is_secret(place: Place) -> bool:
    """Whether the key's name says that its value is one."""
    return any(word in str(part).lower() for part in place for word in _SECRET_WORDS)
