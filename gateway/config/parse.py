"""Plain values into rows, each row for itself, so that one mistake hides no other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gateway.config import document as doc
from gateway.config.lines import Source
from gateway.config.problems import Place, Problems, closest, nearest, shown

R = TypeVar("R", bound=BaseModel)

_REQUIRED = frozenset({"site", "nodes", "listeners", "store"})
_OPTIONS: TypeAdapter[dict[str, str | int | bool]] = TypeAdapter(doc.Options)
_NAME = re.compile(doc.NAME)

_BOUNDS = frozenset({"greater_than_equal", "less_than_equal", "too_short", "too_long"})


@dataclass
class Section(Generic[R]):
    """The rows that are sound, by place. ``given`` and ``named`` also have those that are not.

    Where the section as a whole is none, nothing is known about what it names.
    """

    rows: dict[Place, R] = field(default_factory=dict)
    given: dict[Place, Mapping[str, Any]] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    is_known: bool = True

    def __iter__(self) -> Iterator[tuple[Place, R]]:
        return iter(self.rows.items())


@dataclass
class Document:
    """What could be read. ``listeners``, ``client`` and ``adapters`` are keyed by the last part of a place."""

    site: doc.SiteRow | None
    store: doc.StoreRow | None
    nodes: Section[doc.NodeRow]
    evses: Section[doc.EvseRow]
    stations: Section[doc.StationRow]
    peers: Section[doc.PeerRow]
    bindings: Section[doc.BindingRow]
    meters: Section[doc.MeterRow]
    listeners: Section[doc.ListenerRow]
    client: Section[doc.ClientRow]
    adapters: Mapping[str, Mapping[str, str | int | bool]]


def parse(source: Source) -> Document:
    """The rows of a file; what has no right shape goes into the source's problems."""
    reader = _Parser(source.values, source.problems)
    reader.sections()
    return Document(
        site=reader.one("site", doc.SiteRow),
        store=reader.one("store", doc.StoreRow),
        nodes=reader.items("nodes", doc.NodeRow, "path"),
        evses=reader.items("evses", doc.EvseRow, "node"),
        stations=reader.items("stations", doc.StationRow, "id"),
        peers=reader.items("peers", doc.PeerRow, "id"),
        bindings=reader.items("bindings", doc.BindingRow, "group"),
        meters=reader.items("meters", doc.MeterRow, "principal"),
        listeners=reader.named("listeners", doc.ListenerRow),
        client=reader.named("client", doc.ClientRow),
        adapters=reader.options("adapters"),
    )


class _Parser:
    def __init__(self, values: Mapping[str, Any], problems: Problems) -> None:
        self._values = values
        self._problems = problems

    def sections(self) -> None:
        """Every section is known, and those without which there is no site are there."""
        known = Document.__dataclass_fields__
        for name in self._values:
            if name not in known:
                self._unknown((name,), known)
        for name in sorted(_REQUIRED - set(self._values)):
            self._missing((name,))

    def one(self, name: str, model: type[R]) -> R | None:
        return self._row((name,), self._values[name], model) if name in self._values else None

    def items(self, name: str, model: type[R], key: str) -> Section[R]:
        """A list of rows; ``key`` is the field by which others refer to one."""
        section: Section[R] = Section()
        values = self._values.get(name, [])
        if not isinstance(values, list):
            self._problems.add("value", (name,), "expected a list, each entry after a dash", found=shown(values))
            values = []
        section.is_known = not self._problems.stands_at((name,))
        for index, value in enumerate(values):
            if isinstance(value, dict) and isinstance(value.get(key), str):
                section.named.add(value[key])
            self._take(section, (name, index), value, model)
        return section

    def named(self, name: str, model: type[R]) -> Section[R]:
        """A mapping of names to rows."""
        section: Section[R] = Section()
        values = self._mapping(name)
        section.is_known = not self._problems.stands_at((name,))
        for key, value in values.items():
            section.named.add(key)
            self._take(section, (name, key), value, model)
        return section

    def options(self, name: str) -> dict[str, dict[str, str | int | bool]]:
        """A mapping of names to options."""
        out = {}
        for key, value in self._mapping(name).items():
            try:
                out[key] = _OPTIONS.validate_python(value)
            except ValidationError as problem:
                for error in problem.errors():
                    place = (name, key, *error["loc"])
                    self._value(place, doc.OPTIONS_TEXT, error["input"])
        return out

    def _mapping(self, name: str) -> dict[str, Any]:
        values = self._values.get(name, {})
        if not isinstance(values, dict):
            self._problems.add("value", (name,), "expected a mapping of names", found=shown(values))
            return {}
        for key in values:
            if not _NAME.fullmatch(key):
                self._value((name, key), doc.NAME_TEXT, key)
        return {key: value for key, value in values.items() if value is not None}

    def _take(self, section: Section[R], place: Place, value: Any, model: type[R]) -> None:
        if isinstance(value, dict):
            section.given[place] = value
        row = None if value is None else self._row(place, value, model)
        if row is not None:
            section.rows[place] = row

    def _row(self, place: Place, value: Any, model: type[R]) -> R | None:
        try:
            return model.model_validate(value)
        except ValidationError as problem:
            errors = problem.errors(include_url=False, include_context=False)
        # Misspelt keys first: they explain what is missing.
        errors.sort(key=lambda error: error["type"] != "extra_forbidden")
        for error in errors:
            self._explain(place, error["loc"], error["type"], error["input"], model)
        if not all(_can_go(model, error["loc"], error["type"]) for error in errors):
            return None
        # Without those keys it is a row, and may contradict others.
        return model.model_validate(_without(value, [error["loc"] for error in errors]))

    def _explain(self, base: Place, loc: Place, kind: str, value: Any, model: type[BaseModel]) -> None:
        place = (*base, *loc)
        parts = value if isinstance(value, list) else ()
        if self._problems.stands_at(place) or any(self._problems.stands_at((*place, n)) for n in range(len(parts))):
            return
        owner, expected = _field(model, loc)
        if loc and isinstance(loc[-1], int):
            expected = expected.replace("a list of ", "one of " if kind == "enum" else "", 1)
        if kind == "extra_forbidden":
            self._unknown(place, owner.model_fields)
        elif kind == "missing":
            self._missing(place, expected)
        elif expected == doc.REFERENCE_TEXT:
            hint = "write it to a file for its owner alone (chmod 600) and name that: file:secrets/NAME"
            found = shown(value, place)
            self._problems.add("inline-secret", place, f"expected {expected}", found=found, suggestion=hint)
        elif kind in ("model_type", "model_attributes_type", "dict_type") and not expected:
            self._value(place, f"a mapping of {', '.join(owner.model_fields)}", value)
        else:
            self._value(place, expected, value, close=kind in ("enum", "string_pattern_mismatch"), kind=kind)

    def _value(self, place: Place, expected: str, value: Any, *, close: bool = False, kind: str = "") -> None:
        hint = ""
        if close and expected.startswith("one of "):
            hint = nearest(value, expected.removeprefix("one of ").split(", "))
        elif kind == "string_type" and isinstance(value, bool | int | float):
            hint = "put it in quotes"
        code = "range" if kind in _BOUNDS else "value"
        self._problems.add(code, place, f"expected {expected}", found=shown(value, place), suggestion=hint)

    def _unknown(self, place: Place, known: Mapping[str, Any]) -> None:
        match = closest(place[-1], known)
        if match:
            self._problems.cover((*place[:-1], match))
        hint = f"did you mean {match}?" if match else f"known here: {', '.join(known)}"
        self._problems.add("unknown-key", place, "no such key", suggestion=hint)

    def _missing(self, place: Place, expected: str = "") -> None:
        text = f"this key is needed: {expected}" if expected else "this section is needed"
        self._problems.add("missing-key", place, text)


def _can_go(model: type[BaseModel], loc: Place, kind: str) -> bool:
    """Whether a row means the same without this key: one that nobody knows, or a secret."""
    return kind == "extra_forbidden" or _field(model, loc)[1] == doc.REFERENCE_TEXT


def _without(value: Mapping[str, Any], locs: Iterable[Place]) -> dict[str, Any]:
    copy = deepcopy(dict(value))
    for *way, last in locs:
        inner: Any = copy
        for part in way:
            inner = inner[part]
        del inner[last]
    return copy


def _field(model: type[BaseModel], loc: Place) -> tuple[type[BaseModel], str]:
    """The model whose key ``loc`` names, and what is expected there."""
    expected = ""
    for part in loc:
        if isinstance(part, int):
            continue
        info = model.model_fields.get(part)
        if info is None:
            break
        expected = info.description or _inner_description(info)
        nested = [a for a in (info.annotation, *get_args(info.annotation)) if _is_model(a)]
        if not nested:
            break
        model = nested[0]
    return model, expected


def _inner_description(info: FieldInfo) -> str:
    """The description of ``X | None``, which is that of ``X``."""
    inner = (part for arg in get_args(info.annotation) for part in getattr(arg, "__metadata__", ()))
    return next((part.description for part in inner if isinstance(part, FieldInfo) and part.description), "")


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
