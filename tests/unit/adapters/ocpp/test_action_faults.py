"""Every message of a station with each fault that its schema knows: its own answer, a record, nothing else."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from adapters.ocpp.core import Memory, OpenTransaction
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.wire import Version
from gateway.domain.events import MessageRefused
from tests.support.ocpp_bench import Bench
from tests.support.ocpp_schemas import FROM_STATION, a_payload, a_schema

V16, V201 = Version.V16, Version.V201
MISSING = {V16: "ProtocolError", V201: "OccurrenceConstraintViolation"}
SENT = [(version, action) for version in Version for action in FROM_STATION[version]]
REQUIRED = [
    (version, action, name)
    for version, action in SENT
    for name in a_schema(version, action, "Request").get("required", ())
]
WRONG: dict[str, object] = {"string": 7, "integer": "one", "number": "one", "boolean": "yes", "array": {}, "object": []}
"""Of every type something that it is not, nor may be taken for."""


def resolved(version: Version, action: str, name: str) -> dict[str, Any]:
    """The schema of a field."""
    root = a_schema(version, action, "Request")
    field = root["properties"][name]
    return root["definitions"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field


BOUNDED = [
    (version, action, name)
    for version, action, name in REQUIRED
    if "enum" in (schema := resolved(version, action, name)) or "maxLength" in schema
]


def usable(version: Version) -> Bench:
    """A station in use, with a transaction to talk about, that has nothing more to answer."""
    running = {"SN-CP-1": OpenTransaction(1, "2031-03-01T17:00:00Z")}
    bench = Bench(version, Memory(booted=True, capability=Capability(6, 8, "A"), transactions=running))
    while bench.open() is not None:
        bench.answer({"status": "Accepted"})
    return bench


def refused(version: Version, action: str, payload: dict[str, Any], code: str) -> None:
    """It is answered with ``code``; a record stays, and nothing else."""
    bench = usable(version)
    events, jobs, sent = len(bench.events), len(bench.jobs), len(bench.sent)
    memory = deepcopy(bench.memory)
    answer = bench.call(action, payload)
    assert (answer[0], answer[2]) == (4, code)
    (record,) = bench.events[events:]
    assert isinstance(record, MessageRefused)
    assert (record.code, record.message.endpoint) == (code, f"ocpp/{action}")
    assert (len(bench.jobs), len(bench.sent)) == (jobs, sent + 1)
    assert bench.memory == memory


@pytest.mark.parametrize(("version", "action", "name"), REQUIRED)
def test_a_missing_field(version: Version, action: str, name: str):
    payload = a_payload(version, action, full=False)
    del payload[name]
    refused(version, action, payload, MISSING[version])


@pytest.mark.parametrize(("version", "action", "name"), REQUIRED)
def test_a_field_of_the_wrong_type(version: Version, action: str, name: str):
    wrong = WRONG[resolved(version, action, name)["type"]]
    payload = a_payload(version, action, full=False) | {name: wrong}
    refused(version, action, payload, "TypeConstraintViolation")


@pytest.mark.parametrize(("version", "action", "name"), BOUNDED)
def test_a_word_that_does_not_exist_or_is_too_long(version: Version, action: str, name: str):
    payload = a_payload(version, action, full=False) | {name: "x" * 10_000}
    refused(version, action, payload, "PropertyConstraintViolation")


@pytest.mark.parametrize(("version", "action"), SENT)
def test_an_unknown_field_is_none_of_our_business(version: Version, action: str):
    bench = usable(version)
    answer = bench.call(action, a_payload(version, action, full=False) | {"fresh": {"from": ["a vendor"]}})
    assert answer[0] == 3
    assert bench.of(MessageRefused) == []


@pytest.mark.parametrize("action", sorted(set(FROM_STATION[V201]) - {"BootNotification"}))
def test_a_201_station_is_not_heard_before_its_boot(action: str):
    bench = Bench(V201)
    answer = bench.call(action, a_payload(V201, action, full=False))
    assert answer[2] == "SecurityError"
    assert [type(event) for event in bench.events] == [MessageRefused]
    assert bench.jobs == []
