"""Every schema of both versions has a direction in the docs, and what stations send is answered."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator, Draft6Validator

from adapters.ocpp.core import Memory, OpenTransaction
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.wire import REQUESTS, Version
from gateway.domain.events import MessageRefused
from tests.support.ocpp_bench import Bench

V16, V201 = Version.V16, Version.V201
PAGE = Path(__file__).parents[4] / "docs" / "adapters" / "ocpp.md"
PACKAGE = {V16: "v16", V201: "v201"}
WORDS = {"done", "noted", "taken", "refused"}


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
EVERY = [(version, action) for version in Version for action in sorted(REQUESTS[version])]
SENT = [(version, action, full) for version in Version for action in FROM_STATION[version] for full in (False, True)]


def usable(version: Version) -> Bench:
    """A station in use, with a transaction to talk about."""
    running = {"SN-CP-1": OpenTransaction(1, "2031-03-01T17:00:00Z")}
    return Bench(version, Memory(booted=True, capability=Capability(6, 8, "A"), transactions=running))


@pytest.mark.parametrize(("version", "action"), EVERY)
def test_every_schema_stands_in_a_table_of_the_docs(version: Version, action: str):
    found = [table[version][action] for table in (FROM_STATION, TO_STATION) if action in table[version]]
    assert found
    assert "–" not in found


@pytest.mark.parametrize("version", Version)
def test_the_docs_name_no_message_that_does_not_exist(version: Version):
    assert {a for a, word in (FROM_STATION[version] | TO_STATION[version]).items() if word != "–"} <= set(
        REQUESTS[version]
    )


@pytest.mark.parametrize(("version", "action", "full"), SENT)
def test_every_action_of_a_station_gets_an_answer_that_its_schema_allows(version: Version, action: str, full: bool):
    assert FROM_STATION[version][action] in WORDS
    bench = usable(version)
    answer = bench.call(action, a_payload(version, action, full=full))
    assert answer[0] == 3
    validator = Draft4Validator if version is V16 else Draft6Validator
    validator(a_schema(version, action, "Response")).validate(answer[2])
    assert bench.of(MessageRefused) == []


@pytest.mark.parametrize(("version", "action", "full"), [(v, a, f) for v, a, f in SENT if not f])
def test_what_the_docs_call_noted_leaves_a_line_of_evidence(version: Version, action: str, full: bool):
    bench = usable(version)
    before = len(bench.events)
    payload = a_payload(version, action, full=full)
    if action == "NotifyEvent":
        payload["eventData"][0]["trigger"] = "Alerting"
    bench.call(action, payload)
    if FROM_STATION[version][action] == "noted":
        assert len(bench.events) == before + 1
    if FROM_STATION[version][action] == "taken":
        assert len(bench.events) == before


@pytest.mark.parametrize(
    ("version", "action"),
    [(v, a) for v in Version for a in sorted(set(TO_STATION[v]) - set(FROM_STATION[v])) if a in REQUESTS[v]],
)
def test_what_only_we_may_send_is_not_supported_from_a_station(version: Version, action: str):
    bench = usable(version)
    answer = bench.call(action, a_payload(version, action, full=False))
    assert answer[2] == "NotSupported"
    assert [r.code for r in bench.of(MessageRefused)] == ["NotSupported"]
