"""Makes ``wire/v16.py`` and ``wire/v201.py`` from the ``ocpp`` package's JSON schemas.

Text in, text out: it runs when the files are remade (``make schemas``) and is not imported at run
time. Names on the wire are written out beside every Python name, so nothing is converted later.
"""

from __future__ import annotations

import hashlib
import json
import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from typing import Any, TypeAlias

from gateway.domain.errors import LocalError

Schema: TypeAlias = Mapping[str, Any]

LENIENT_STRUCTS = frozenset({"SampledValue", "SampledValueType", "UnitOfMeasureType"})
"""Metering: an unknown word here must not make a station repeat a message until it gives up."""

LENIENT_FIELDS = {
    ("SampledValue", "value"): "str | int | float",
    ("SampledValueType", "value"): "float | str",
}
"""Vestel and OpenEVSE send 1.6 values as numbers, others 2.x values as text."""

LENIENT_LENGTHS = frozenset({"sampledValue"})
"""Empty lists of sampled values exist in the field (Vestel EVC04)."""

_LEAVES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_BOUNDS = {"maxLength": "max_length", "minimum": "ge", "maximum": "le"}
_TARGETS = {"v16": "1.6", "v201": "2.0.1"}
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def schemas() -> dict[str, bytes]:
    """Every generated file: path from the repository's root to its content."""
    return {
        f"adapters/ocpp/wire/{package}.py": generate(package, protocol).encode()
        for package, protocol in _TARGETS.items()
    }


def generate(package: str, protocol: str) -> str:
    """Source text of one version's messages."""
    documents = dict(_documents(package))
    module = _Module()
    for name, document in documents.items():
        module.add_message(_message_name(name), json.loads(document.decode("utf-8-sig")))
    return module.render(protocol, version("ocpp"), _digest(documents))


def _documents(package: str) -> Iterator[tuple[str, bytes]]:
    folder = files("ocpp") / package / "schemas"
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".json"):
            yield entry.name.removesuffix(".json"), entry.read_bytes()


def _digest(documents: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, document in documents.items():
        whole.update(f"{name}\0{len(document)}\0".encode())
        whole.update(document)
    return whole.hexdigest()


def _message_name(stem: str) -> str:
    """1.6 files lack the suffix of a request."""
    return stem if stem.endswith(("Request", "Response")) else f"{stem}Request"


def _python_name(wire_name: str) -> str:
    name = _WORD.sub("_", wire_name).lower()
    return f"{name}_" if keyword.iskeyword(name) else name


@dataclass
class _Module:
    """Collects structs and aliases; equal shapes share one name, unequal ones get longer names."""

    structs: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def add_message(self, name: str, document: Schema) -> None:
        definitions = document.get("definitions", {})
        self.messages.append(name)
        self._struct(name, document, definitions, name)

    def _struct(self, wanted: str, schema: Schema, definitions: Mapping[str, Schema], parent: str) -> str:
        shape = json.dumps([_bare(schema), _bare(definitions)], sort_keys=True)
        name = wanted
        if self.shapes.get(name, shape) != shape and not self._same_body(name, schema, definitions):
            name = f"{parent}{wanted}"
        if name in self.structs:
            return name
        self.shapes[name] = shape
        self.structs[name] = ""
        self.structs[name] = self._body(name, schema, definitions)
        return name

    def _same_body(self, name: str, schema: Schema, definitions: Mapping[str, Schema]) -> bool:
        """Whether the struct already made under this name has the same text."""
        return self.structs.get(name) == self._body(name, schema, definitions)

    def _body(self, name: str, schema: Schema, definitions: Mapping[str, Schema]) -> str:
        required = set(schema.get("required", ()))
        lines = []
        seen: dict[str, str] = {}
        for wire_name, inner in schema.get("properties", {}).items():
            python = _python_name(wire_name)
            if python in seen:
                raise LocalError(f"{name}: {wire_name} and {seen[python]} both become {python}")
            seen[python] = wire_name
            lines.append(self._field(name, wire_name, inner, definitions, wire_name in required))
        return "\n".join(lines) or "    pass"

    def _field(
        self, struct: str, wire_name: str, schema: Schema, definitions: Mapping[str, Schema], required: bool
    ) -> str:
        kind = LENIENT_FIELDS.get((struct, wire_name)) or self._type(struct, wire_name, schema, definitions)
        if required:
            return f'    {_python_name(wire_name)}: {kind} = field(name="{wire_name}")'
        return f'    {_python_name(wire_name)}: {kind} | None = field(default=None, name="{wire_name}")'

    def _type(self, struct: str, wire_name: str, schema: Schema, definitions: Mapping[str, Schema]) -> str:
        reference = schema.get("$ref")
        if reference is not None:
            return self._referenced(struct, reference.rpartition("/")[2], definitions)
        if "enum" in schema:
            return "str" if struct in LENIENT_STRUCTS else _literal(schema)
        match schema.get("type"):
            case "object":
                wanted = wire_name[:1].upper() + wire_name[1:]
                return self._struct(wanted, schema, definitions, struct) if "properties" in schema else "dict[str, Any]"
            case "array":
                item = self._type(struct, wire_name, schema["items"], definitions)
                bounds = {} if wire_name in LENIENT_LENGTHS else {"minItems": "min_length", "maxItems": "max_length"}
                return _annotated(f"tuple[{item}, ...]", schema, bounds)
            case None:
                return "Any"
            case leaf if leaf in _LEAVES:
                return _annotated(_LEAVES[leaf], schema, _BOUNDS)
            case other:
                raise LocalError(f"{struct}.{wire_name}: no rule for type {other!r}")

    def _referenced(self, struct: str, name: str, definitions: Mapping[str, Schema]) -> str:
        target = definitions[name]
        if "enum" not in target:
            return self._struct(name, target, definitions, struct)
        if struct in LENIENT_STRUCTS:
            return "str"
        text = _literal(target)
        if self.aliases.setdefault(name, text) != text:
            name = f"{struct}{name}"
            self.aliases.setdefault(name, text)
        return name

    def render(self, protocol: str, package_version: str, digest: str) -> str:
        """The module's text."""
        parts = [_HEADER.format(protocol=protocol, version=package_version, digest=digest)]
        parts += [f"{name} = {text}" for name, text in sorted(self.aliases.items())]
        for name, body in self.structs.items():
            parts.append(f"\n\nclass {name}(Struct, frozen=True, kw_only=True, omit_defaults=True):\n{body}")
        for title, suffix in (("REQUESTS", "Request"), ("RESPONSES", "Response")):
            rows = "".join(
                f'    "{name.removesuffix(suffix)}": {name},\n' for name in self.messages if name.endswith(suffix)
            )
            parts.append(f"\n\n{title}: dict[str, type[Struct]] = {{\n{rows}}}")
        return "\n".join(parts) + "\n"


_HEADER = '''"""Messages of OCPP {protocol}. Generated by ``make schemas``: do not edit.

Made from the JSON schemas of the package ocpp {version},
sha256 {digest}.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

'''


def _literal(schema: Schema) -> str:
    return f"Literal[{', '.join(json.dumps(word) for word in schema['enum'])}]"


def _annotated(kind: str, schema: Schema, keywords: Mapping[str, str]) -> str:
    limits = ", ".join(f"{ours}={_number(schema[theirs])}" for theirs, ours in keywords.items() if theirs in schema)
    return f"Annotated[{kind}, Meta({limits})]" if limits else kind


def _number(value: float) -> str:
    """Some schemas write counts as ``0.0``."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def _bare(schema: Any) -> Any:
    """A schema without its prose."""
    if isinstance(schema, dict):
        return {
            key: _bare(value)
            for key, value in schema.items()
            if not (key in ("description", "comment", "javaType", "title") and isinstance(value, str))
        }
    return [_bare(item) for item in schema] if isinstance(schema, list) else schema
