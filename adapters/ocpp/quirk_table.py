"""Reads ``quirks.yaml`` beside this file, and the operator's own rows after it.

An operator's row of the same name takes the place of a shipped one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import msgspec

from adapters.ocpp.core.intake import MAX_DETAIL_CHARS
from adapters.ocpp.core.quirks import Effect, Quirk, RateUnit, Relation
from gateway.domain.errors import ConfigError, ConfigProblem

MAX_FILE_BYTES = 256 * 1024
"""Largest file of an operator: some thousand rows."""

_TEXTS = ("name", "seen", "vendor", "model", "firmware")
_ROW = (*_TEXTS, "effect")
_WORDS = {"unit": get_args(RateUnit), "kind": get_args(Relation)}
_SWITCHES = tuple(field.name for field in msgspec.structs.fields(Effect) if field.type is bool)
_EFFECT = (*_WORDS, *_SWITCHES, "hint")
_YES_NO = "expected true or false"


@cache
def quirks() -> tuple[Quirk, ...]:
    """The table; a mistake in it raises ``msgspec.ValidationError``, and a test reads it."""
    # Heavy, and needed once.
    from ruamel.yaml import YAML

    text = (files("adapters.ocpp") / "quirks.yaml").read_text(encoding="utf-8")
    return tuple(msgspec.convert(YAML(typ="safe").load(text), list[Quirk]))


def quirks_with(path: Path | None) -> tuple[Quirk, ...]:
    """The table with an operator's rows at its end, where they win.

    Raises:
        ConfigError: every mistake in the operator's file, with its line.
    """
    if path is None:
        return quirks()
    own = _Reader(path).rows()
    replaced = {quirk.name for quirk in own}
    return (*(quirk for quirk in quirks() if quirk.name not in replaced), *own)


class _Reader:
    """One file of an operator. Lines count from 1; keys are written ``[row].key``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[ConfigProblem] = []
        self._names: dict[str, int] = {}

    def rows(self) -> tuple[Quirk, ...]:
        """All rows, or all mistakes."""
        document = self._document()
        rows: list[Quirk | None] = []
        if isinstance(document, list):
            lines: Any = document
            rows = [self._row(row, index, lines.lc.item(index)[0] + 1) for index, row in enumerate(document)]
        else:
            self._add(1, "", "expected a list of rows, each after a dash")
        if self._found:
            raise ConfigError(tuple(sorted(self._found, key=lambda problem: problem.line)))
        return tuple(row for row in rows if row is not None)

    def _document(self) -> Any:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as problem:
            raise self._error(0, f"cannot be read: {problem.strerror}") from problem
        if len(data) > MAX_FILE_BYTES:
            raise self._error(0, f"larger than {MAX_FILE_BYTES} bytes")
        try:
            return YAML(typ="rt").load(data.decode("utf-8-sig"))
        except UnicodeDecodeError as problem:
            raise self._error(data.count(b"\n", 0, problem.start) + 1, "expected UTF-8 text") from problem
        except (YAMLError, ValueError, RecursionError) as problem:
            mark = problem.problem_mark if isinstance(problem, MarkedYAMLError) else None
            why = problem.problem if isinstance(problem, MarkedYAMLError) else "it cannot be parsed"
            raise self._error(0 if mark is None else mark.line + 1, f"no YAML: {why}") from problem

    def _row(self, row: Any, index: int, line: int) -> Quirk | None:
        place = f"[{index}]"
        if not isinstance(row, dict):
            self._add(line, place, f"expected a mapping of {', '.join(_ROW)}", found=_shown(row))
            return None
        before = len(self._found)
        self._unknown(row, place, _ROW)
        self._texts(row, place, line)
        effect = row.get("effect")
        if isinstance(effect, dict):
            self._effect(effect, f"{place}.effect")
        elif effect is not None:
            self._add(_line(row, "effect"), f"{place}.effect", _one_of("a mapping of", _EFFECT), found=_shown(effect))
        if not effect and "effect" not in self._close(row, _ROW):
            self._add(line, f"{place}.effect", "this key is needed: " + _one_of("a mapping of", _EFFECT))
        return None if len(self._found) > before else msgspec.convert(_plain(row), Quirk)

    def _texts(self, row: Mapping[str, Any], place: str, line: int) -> None:
        for key in _TEXTS:
            value = row.get(key)
            if value is not None and not isinstance(value, str):
                hint = "put it in quotes" if isinstance(value, bool | int | float) else ""
                self._add(_line(row, key), f"{place}.{key}", "expected text", found=_shown(value), suggestion=hint)
        misspelt = self._close(row, _ROW)
        for key in ("name", "seen"):
            if not row.get(key) and key not in misspelt:
                self._add(line, f"{place}.{key}", "this key is needed: text")
        if not any(row.get(key) or key in misspelt for key in ("vendor", "model", "firmware")):
            text = "an effect on every station; expected how vendor, model or firmware begin"
            self._add(line, f"{place}.vendor", text)
        name = row.get("name")
        if isinstance(name, str) and self._names.setdefault(name, line) != line:
            self._add(_line(row, "name"), f"{place}.name", f"the same name as on line {self._names[name]}", found=name)

    def _effect(self, effect: Mapping[str, Any], place: str) -> None:
        self._unknown(effect, place, _EFFECT)
        for key, value in effect.items():
            line, where = _line(effect, key), f"{place}.{key}"
            if key in _WORDS and value not in _WORDS[key]:
                suggestion = _nearest(value, _WORDS[key])
                self._add(line, where, _one_of("one of", _WORDS[key]), found=_shown(value), suggestion=suggestion)
            elif key in _SWITCHES and not isinstance(value, bool):
                self._add(line, where, _YES_NO, found=_shown(value))
            elif key == "hint" and not (isinstance(value, str) and 0 < len(value) <= MAX_DETAIL_CHARS):
                text = f"expected text of at most {MAX_DETAIL_CHARS} characters"
                self._add(line, where, text, found=f"{len(value)} characters" if isinstance(value, str) else "")

    def _unknown(self, row: Mapping[str, Any], place: str, known: Iterable[str]) -> None:
        for key in row:
            if key not in known:
                hint = _nearest(key, known) or f"known here: {', '.join(known)}"
                self._add(_line(row, key), f"{place}.{key}", "no such key", suggestion=hint)

    @staticmethod
    def _close(row: Mapping[str, Any], known: Iterable[str]) -> set[str]:
        """What misspelt keys stand for: it is not missing as well."""
        return {match for key in row if key not in known for match in get_close_matches(str(key), list(known), n=1)}

    def _add(self, line: int, key: str, message: str, *, found: str = "", suggestion: str = "") -> None:
        self._found.append(ConfigProblem("ocpp.quirk", str(self._path), line, key, message, found, suggestion))

    def _error(self, line: int, message: str) -> ConfigError:
        return ConfigError((ConfigProblem("ocpp.quirk", str(self._path), line, "", message),))


def _line(row: Any, key: str) -> int:
    """Where a key of a mapping that was read with its places stands."""
    return int(row.lc.key(key)[0]) + 1


def _plain(value: Any) -> Any:
    """Without the places."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    return str(value)[:MAX_DETAIL_CHARS]


def _one_of(what: str, words: Iterable[str]) -> str:
    return f"expected {what} {', '.join(words)}"


def _nearest(word: object, known: Iterable[str]) -> str:
    matches = get_close_matches(str(word), list(known), n=1)
    return f"did you mean {matches[0]}?" if matches else ""
