"""Every schema of both versions has a direction in the docs, and what stations send is answered."""

from __future__ import annotations

import pytest
from jsonschema import Draft4Validator, Draft6Validator

from adapters.ocpp.core import Memory, OpenTransaction
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.wire import REQUESTS, Version
from gateway.domain.events import MessageRefused
from tests.support.ocpp_bench import Bench
from tests.support.ocpp_schemas import FROM_STATION, TO_STATION, a_payload, a_schema, actions

V16 = Version.V16
WORDS = {"done", "noted", "taken", "refused"}

EVERY = [(version, action) for version in Version for action in sorted(REQUESTS[version])]
SENT = [(version, action, full) for version in Version for action in FROM_STATION[version] for full in (False, True)]


def usable(version: Version) -> Bench:
    """A station in use, with a transaction to talk about."""
    running = {"SN-CP-1": OpenTransaction(1, "2031-03-01T17:00:00Z")}
    return Bench(version, Memory(booted=True, capability=Capability(6, 8, "A"), transactions=running))


@pytest.mark.parametrize("version", Version)
def test_every_schema_of_the_package_has_its_message(version: Version):
    assert set(REQUESTS[version]) == actions(version)


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
