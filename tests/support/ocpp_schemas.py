"""The JSON schemas of the package ``ocpp``, payloads made from them, and the tables of the adapter's page."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator, Draft6Validator

from adapters.ocpp.wire import REQUESTS, Version

V16, V201 = Version.V16, Version.V201
PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "ocpp.md"
PACKAGE = {V16: "v16", V201: "v201"}


def actions(version: Version) -> set[str]:
    """Every action that the package has a request's schema for."""
    stems = {path.name.removesuffix(".json") for path in (files("ocpp") / PACKAGE[version] / "schemas").iterdir()}
    if version is V16:
        return {stem for stem in stems if not stem.endswith("Response")}
    return {stem.removesuffix("Request") for stem in stems if stem.endswith("Request")}


def a_schema(version: Version, action: str, kind: str) -> dict[str, Any]:
    """``kind``: Request or Response."""
    stem = action if version is V16 and kind == "Request" else f"{action}{kind}"
    path = files("ocpp") / PACKAGE[version] / "schemas" / f"{stem}.json"
    return json.loads(path.read_bytes().decode("utf-8-sig"))


def a_value(schema: dict[str, Any], root: dict[str, Any], *, full: bool) -> Any:
    """Something that the schema allows: all of its fields, or those alone that it requires."""
    if "$ref" in schema:
        return a_value(root["definitions"][schema["$ref"].rpartition("/")[2]], root, full=full)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            required = schema.get("required", ())
            wanted = [name for name in schema.get("properties", {}) if full or name in required]
            return {name: a_value(schema["properties"][name], root, full=full) for name in wanted}
        case "array":
            return [a_value(schema["items"], root, full=full)] * max(1, int(schema.get("minItems", 1)))
        case "string":
            return "2031-03-01T17:00:00Z" if schema.get("format") == "date-time" else "SN-CP-1"
        case "boolean":
            return True
        case _:
            return max(1, int(schema.get("minimum", 1)))


def a_payload(version: Version, action: str, *, full: bool) -> dict[str, Any]:
    root = a_schema(version, action, "Request")
    payload = a_value(root, root, full=full)
    validator = Draft4Validator if version is V16 else Draft6Validator
    validator(root).validate(payload)
    return payload


def documented(heading: str) -> dict[Version, dict[str, str]]:
    """Word per action and version in the table below a heading of the adapter's page."""
    section = PAGE.read_text().split(f"### {heading}\n")[1]
    table: dict[Version, dict[str, str]] = {V16: {}, V201: {}}
    for row in re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|", section.split("\n#")[0], re.MULTILINE):
        for action in re.split(r"[,;] ", row[0]):
            for version, word in ((V16, row[1]), (V201, row[2])):
                if action in REQUESTS[version] or word not in ("–", "2.0.1", "1.6"):
                    table[version][action] = word
    return {version: {a: w for a, w in rows.items() if a[0].isupper()} for version, rows in table.items()}


FROM_STATION = documented("From the station")
TO_STATION = documented("To the station")
