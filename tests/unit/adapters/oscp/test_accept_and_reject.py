"""What is taken and what is not, row by row: the protocol's own answer, a record, no other effect."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.oscp.session import State
from gateway.domain.events import EnvelopeRevised, MessageNoted, SourceEnded, SourceHeard
from tests.unit.adapters.oscp.fakes import NOW, World, a_block, a_forecast, a_peer, a_register, a_world

pytestmark = pytest.mark.anyio

FORECAST = "update_group_capacity_forecast"
STREAMS = ("CONSUMPTION", "GENERATION", "FALLBACK_CONSUMPTION", "FALLBACK_GENERATION")


@dataclass(frozen=True)
class Row:
    """A message to a peer that is registered, and what it is answered. ``code`` is the record's."""

    status: int
    code: str
    body: Any = None
    content: bytes | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    endpoint: str = FORECAST
    method: str = "POST"


def a_timed(start: str, end: str = "2026-03-01T18:00:00Z") -> dict[str, Any]:
    return a_forecast(a_block(start_time=start, end_time=end))


REJECTED: dict[str, Row] = {
    "no token": Row(401, "oscp.unauthenticated", a_forecast(), headers={"Authorization": None}),
    "an empty token": Row(401, "oscp.unauthenticated", a_forecast(), headers={"Authorization": "Token "}),
    "a bare token": Row(401, "oscp.unauthenticated", a_forecast(), headers={"Authorization": "token-b-of-the-dso"}),
    "another scheme": Row(401, "oscp.unauthenticated", a_forecast(), headers={"Authorization": "Basic eDp5"}),
    "an unknown token": Row(401, "oscp.unauthenticated", a_forecast(), headers={"Authorization": "Token guessed"}),
    "no request id": Row(400, "peer.malformed-message", a_forecast(), headers={"X-Request-ID": None}),
    "a time without zone": Row(400, "peer.malformed-message", a_timed("2026-03-01T16:00:00")),
    "an end without zone": Row(400, "peer.malformed-message", a_timed("2026-03-01T16:00:00Z", "2026-03-01T18:00:00")),
    "a date alone": Row(400, "peer.malformed-message", a_timed("2026-03-01")),
    "a leap second": Row(400, "peer.malformed-message", a_timed("2026-03-01T16:00:00Z", "2026-03-01T23:59:60Z")),
    "hour 24": Row(400, "peer.malformed-message", a_timed("2026-03-01T16:00:00Z", "2026-03-01T24:00:00Z")),
    "30 February": Row(400, "peer.malformed-message", a_timed("2026-02-30T16:00:00Z")),
    "a week date": Row(400, "peer.malformed-message", a_timed("2026-W09-7T16:00:00Z")),
    "an end before the start": Row(400, "peer.malformed-message", a_timed("2026-03-01T19:00:00Z")),
    "an end at the start": Row(400, "peer.malformed-message", a_timed("2026-03-01T18:00:00Z")),
    "an end before the start by its zone alone": Row(
        400, "peer.malformed-message", a_timed("2026-03-01T18:30:00+01:00", "2026-03-01T18:00:00+01:00")
    ),
    "a negative capacity": Row(400, "peer.malformed-message", a_forecast(a_block(capacity=-1))),
    "minus nothing and a bit": Row(400, "peer.malformed-message", a_forecast(a_block(capacity=-0.0001))),
    "no capacity": Row(400, "peer.malformed-message", a_forecast(a_block(capacity=None))),
    "a capacity of null": Row(
        400, "peer.malformed-message", content=json.dumps(a_forecast()).replace("180", "null").encode()
    ),
    "no blocks": Row(400, "peer.malformed-message", a_forecast(forecasted_blocks=[])),
    "blocks of null": Row(400, "peer.malformed-message", a_forecast(forecasted_blocks=None)),
    "a block that is none": Row(400, "peer.malformed-message", a_forecast(forecasted_blocks=[7])),
    "one bad block among good ones": Row(
        400, "peer.malformed-message", a_forecast(a_block(), a_block(end_time="2026-03-01T16:00:00Z"))
    ),
    "no group": Row(400, "peer.malformed-message", a_forecast(group_id="")),
    "an unknown group": Row(404, "domain.unknown-group", a_forecast(group_id="NOWHERE")),
    "a group in other letters": Row(404, "domain.unknown-group", a_forecast(group_id="depot-7")),
    "another peer's group": Row(403, "oscp.foreign-group", a_forecast(group_id="FOREIGN")),
    "too many bytes": Row(413, "peer.body-too-large", content=b" " * (256 * 1024 + 1)),
    "no JSON": Row(400, "peer.malformed-message", content=b"capacity=5"),
    "two documents": Row(400, "peer.malformed-message", content=json.dumps(a_forecast()).encode() * 2),
    "XML": Row(415, "oscp.media-type", content=b"<x/>", headers={"Content-Type": "application/xml"}),
    "an unknown endpoint": Row(404, "oscp.no-such-endpoint", {}, endpoint="update_group_measurements"),
    "another method": Row(405, "oscp.method", method="PUT"),
    "half a place": Row(400, "peer.malformed-message", a_forecast(), headers={"X-Segment-Index": "1"}),
    "a heartbeat without zone": Row(
        400, "peer.malformed-message", {"offline_mode_at": "2026-03-01T15:05:00"}, endpoint="heartbeat"
    ),
    "a heartbeat interval of 0": Row(
        400, "peer.malformed-message", {"required_behaviour": {"heartbeat_interval": 0}}, endpoint="handshake"
    ),
    "a heartbeat interval in words": Row(
        400, "peer.malformed-message", {"required_behaviour": {"heartbeat_interval": "60"}}, endpoint="handshake"
    ),
    "a register without versions": Row(
        400, "peer.malformed-message", {"token": "t", "version_url": []}, endpoint="register"
    ),
    "a register for version 1.0": Row(
        501,
        "oscp.no-common-version",
        {"token": "t", "version_url": [{"version": "1.0", "base_url": "https://dso.example.org"}]},
        endpoint="register",
    ),
    "a register to an address inside": Row(
        400,
        "peer.url",
        {"token": "t", "version_url": [{"version": "2.0", "base_url": "https://169.254.169.254/oscp"}]},
        endpoint="register",
    ),
    "a register over plain HTTP": Row(
        400,
        "peer.url",
        {"token": "t", "version_url": [{"version": "2.0", "base_url": "http://dso.example.org/oscp"}]},
        endpoint="register",
    ),
    "a register without token": Row(
        400, "peer.malformed-message", {k: v for k, v in a_register().items() if k != "token"}, endpoint="register"
    ),
    "a register that answers nothing of ours": Row(
        400, "peer.malformed-message", a_register(), headers={"X-Correlation-ID": "q-0"}, endpoint="register"
    ),
    "a changed register for version 1.0": Row(
        501,
        "oscp.no-common-version",
        {"token": "t", "version_url": [{"version": "1.0", "base_url": "https://dso.example.org"}]},
        endpoint="register",
        method="PUT",
    ),
    "a changed register to an address inside": Row(
        400, "peer.url", a_register(url="https://10.0.0.7/oscp"), endpoint="register", method="PUT"
    ),
    "a changed register without its fields": Row(400, "peer.malformed-message", {}, endpoint="register", method="PUT"),
    "a register to read": Row(405, "oscp.method", endpoint="register", method="GET"),
    "a kind of register that is none": Row(
        400,
        "peer.malformed-message",
        {"required_behaviour": {"measurement_configuration": ["SOMETIMES"]}},
        endpoint="handshake",
    ),
    "a heartbeat interval rarer than daily": Row(
        400, "peer.malformed-message", {"required_behaviour": {"heartbeat_interval": 86_401}}, endpoint="handshake"
    ),
    "an acknowledge with a negative interval": Row(
        400,
        "peer.malformed-message",
        {"required_behaviour": {"heartbeat_interval": -1}},
        endpoint="handshake_acknowledge",
    ),
    "a heartbeat in seconds since 1970": Row(
        400, "peer.malformed-message", {"offline_mode_at": 1_772_380_800}, endpoint="heartbeat"
    ),
    "a capacity as text": Row(400, "peer.malformed-message", a_forecast(a_block(capacity="11.5"))),
    "a capacity beyond every grid": Row(400, "peer.malformed-message", a_forecast(a_block(capacity=1e13))),
    "a huge integer": Row(
        400, "peer.malformed-message", content=json.dumps(a_forecast()).replace("180", "9" * 5_000).encode()
    ),
    "a capacity of NaN": Row(
        400, "peer.malformed-message", content=json.dumps(a_forecast()).replace("180", "NaN").encode()
    ),
    "a capacity of infinity": Row(
        400, "peer.malformed-message", content=json.dumps(a_forecast()).replace("180", "-Infinity").encode()
    ),
    "a key twice": Row(
        400,
        "peer.malformed-message",
        content=json.dumps(a_forecast()).replace('"unit": "KW"', '"unit": "KW", "unit": "W"').encode(),
    ),
    "too deep": Row(400, "peer.malformed-message", content=b'{"x":' * 40 + b"1" + b"}" * 40),
    "another type": Row(400, "peer.malformed-message", a_forecast(type="ADVICE")),
    "another phase": Row(400, "peer.malformed-message", a_forecast(a_block(phase="L1"))),
    "a unit of money": Row(400, "peer.malformed-message", a_forecast(a_block(unit="EUR"))),
    "a group of 256 characters": Row(400, "peer.malformed-message", a_forecast(group_id="x" * 256)),
    "a limit further than 35 days": Row(
        400, "peer.malformed-message", a_timed("2026-03-01T16:00:00Z", "2026-04-05T15:00:01Z")
    ),
    "a request id with a blank": Row(400, "peer.malformed-message", a_forecast(), headers={"X-Request-ID": "a b"}),
    "a request id of 256 characters": Row(
        400, "peer.malformed-message", a_forecast(), headers={"X-Request-ID": "x" * 256}
    ),
    "a correlation with a blank": Row(400, "peer.malformed-message", a_forecast(), headers={"X-Correlation-ID": "a b"}),
    "segment 0": Row(
        400, "peer.malformed-message", a_forecast(), headers={"X-Segment-Index": "0", "X-Segment-Count": "2"}
    ),
    "segments without number": Row(
        400, "peer.malformed-message", a_forecast(), headers={"X-Segment-Index": "one", "X-Segment-Count": "2"}
    ),
    "1,001 segments": Row(
        400, "peer.malformed-message", a_forecast(), headers={"X-Segment-Index": "1", "X-Segment-Count": "1001"}
    ),
    "a second segment that names no first": Row(
        400, "peer.malformed-message", a_forecast(), headers={"X-Segment-Index": "2", "X-Segment-Count": "2"}
    ),
    "a heartbeat in segments": Row(
        400,
        "peer.malformed-message",
        {},
        headers={"X-Segment-Index": "1", "X-Segment-Count": "2"},
        endpoint="heartbeat",
    ),
    **{
        f"{endpoint}, which is for others to take": Row(404, "oscp.no-such-endpoint", {}, endpoint=endpoint)
        for endpoint in (
            "adjust_group_capacity_forecast",
            "group_capacity_compliance_error",
            "update_asset_measurements",
        )
    },
}

ACCEPTED: dict[str, Row] = {
    "an offset instead of Z": Row(204, "", a_timed("2026-03-01T17:00:00+01:00", "2026-03-01T19:00:00+01:00")),
    "small letters": Row(204, "", a_timed("2026-03-01t16:00:00z")),
    "a blank instead of T": Row(204, "", a_timed("2026-03-01 16:00:00Z")),
    "nanoseconds": Row(204, "", a_timed("2026-03-01T16:00:00.123456789Z")),
    "the last second of a day": Row(204, "", a_timed("2026-03-01T16:00:00Z", "2026-03-01T23:59:59Z")),
    "nothing allowed": Row(204, "", a_forecast(a_block(capacity=0))),
    "a whole number with a point": Row(204, "", a_forecast(a_block(capacity=180.0))),
    "fields that nobody knows": Row(204, "", a_forecast(a_block(tariff="x"), sent_by="me")),
    "blocks out of order": Row(
        204,
        "",
        a_forecast(
            a_block(start_time="2026-03-01T20:00:00Z", end_time="2026-03-01T21:00:00Z"),
            a_block(start_time="2026-03-01T18:00:00Z", end_time="2026-03-01T19:00:00Z"),
        ),
    ),
    "a message about the past": Row(204, "", a_timed("2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z")),
    "a charset": Row(204, "", a_forecast(), headers={"Content-Type": "application/json; charset=UTF-8"}),
    "a correlation that means nothing": Row(204, "", a_forecast(), headers={"X-Correlation-ID": "old"}),
    "one segment of one": Row(204, "", a_forecast(), headers={"X-Segment-Index": "1", "X-Segment-Count": "1"}),
    **{
        f"{type_} in {unit} on {phase}": Row(204, "", a_forecast(a_block(unit=unit, phase=phase), type=type_))
        for type_ in (*STREAMS, "OPTIMUM")
        for unit in ("A", "W", "KW", "WH", "KWH")
        for phase in ("ALL", "TWO", "UNKNOWN")
    },
}


def everything(world: World) -> Any:
    """All that a message could change."""
    gate = world.gate
    return copy.deepcopy((gate.events, gate.outbox, gate.rows, gate.inbox, gate.commits))


async def send(world: World, row: Row) -> Any:
    return await world.request(row.method, row.endpoint, row.body, content=row.content, headers=row.headers)


Effect = Callable[[World], bool]


def stored(world: World) -> Any:
    return json.loads(world.gate.rows["relation/dso"])


def heard(world: World) -> bool:
    return isinstance(world.gate.noted[-1], SourceHeard)


def notes(world: World) -> bool:
    return isinstance(world.gate.events[-1], MessageNoted)


def ends(world: World) -> bool:
    return isinstance(world.gate.events[-1], SourceEnded) and stored(world)["state"] == State.ENDED


def owes_acknowledge(world: World) -> bool:
    return [item.kind for item in world.gate.outbox] == ["oscp.handshake_acknowledge"]


def owes_register(world: World) -> bool:
    return [item.kind for item in world.gate.outbox] == ["oscp.register"]


def wants(seconds: int) -> Effect:
    return lambda world: owes_acknowledge(world) and stored(world)["heartbeat_s"] == seconds


def is_at(url: str) -> Effect:
    return lambda world: stored(world)["base_url"] == url


@pytest.mark.parametrize("name", REJECTED)
async def test_what_is_rejected_gets_its_answer_a_record_and_has_no_other_effect(tmp_path: Path, name: str) -> None:
    row = REJECTED[name]
    async with a_world(tmp_path) as world:
        await world.register()
        before, records, calls = everything(world), len(world.refusals()), len(world.line.calls)
        answer = await send(world, row)
        assert answer.status_code == row.status, answer.text
        assert list(answer.json()) == ["message"]
        assert len(world.refusals()) == records + 1
        assert world.refusals()[-1].code == row.code
        assert world.refusals()[-1].message.peer == "dso"
        assert everything(world) == before
        assert len(world.line.calls) == calls


@pytest.mark.parametrize("name", ACCEPTED)
async def test_what_is_accepted_gets_204_and_takes_effect_once(tmp_path: Path, name: str) -> None:
    row = ACCEPTED[name]
    async with a_world(tmp_path) as world:
        await world.register()
        answer = await send(world, row)
        assert (answer.status_code, answer.content) == (204, b""), answer.text
        effects = [e for e in world.gate.events if isinstance(e, EnvelopeRevised)]
        advice = [e for e in world.gate.events if isinstance(e, MessageNoted) and e.type == "oscp.optimum"]
        assert len(effects) + len(advice) == 1
        assert bool(advice) is ("OPTIMUM" in name)
        assert world.refusals() == []


TAKEN: dict[str, tuple[Row, Effect]] = {
    "a heartbeat without its time": (Row(204, "", {}, endpoint="heartbeat"), heard),
    "a heartbeat": (Row(204, "", {"offline_mode_at": "2026-03-01T15:05:00Z"}, endpoint="heartbeat"), heard),
    "a heartbeat of who is gone": (
        Row(204, "", {"offline_mode_at": "2026-03-01T14:00:00Z"}, endpoint="heartbeat"),
        heard,
    ),
    "a heartbeat of who is there for weeks": (
        Row(204, "", {"offline_mode_at": "2026-04-01T00:00:00+02:00"}, endpoint="heartbeat"),
        heard,
    ),
    "a handshake without wishes": (Row(204, "", {}, endpoint="handshake"), owes_acknowledge),
    "a handshake of null": (Row(204, "", {"required_behaviour": None}, endpoint="handshake"), owes_acknowledge),
    "a handshake with nulls": (
        Row(
            204,
            "",
            {"required_behaviour": {"heartbeat_interval": None, "measurement_configuration": None}},
            endpoint="handshake",
        ),
        owes_acknowledge,
    ),
    "a handshake without its wrapper": (Row(204, "", {"heartbeat_interval": 20}, endpoint="handshake"), wants(20)),
    "a handshake with a broken interval": (
        Row(204, "", {"required_behaviour": {"heartbeat_interval": 30.9}}, endpoint="handshake"),
        wants(30),
    ),
    "a handshake for both kinds of registers": (
        Row(
            204,
            "",
            {"required_behaviour": {"measurement_configuration": ["CONTINUOUS", "INTERMITTENT"]}},
            endpoint="handshake",
        ),
        owes_acknowledge,
    ),
    "an acknowledge that answers nothing": (Row(204, "", {}, endpoint="handshake_acknowledge"), notes),
    "an acknowledge under its other spelling": (Row(204, "", {}, endpoint="handshake_acknowledgment"), notes),
    "a register that starts anew": (Row(204, "", a_register("another-token"), endpoint="register"), owes_register),
    "a register for several versions": (
        Row(
            204,
            "",
            {
                "token": "t",
                "version_url": [
                    {"version": "3.0", "base_url": "https://dso.example.org/3"},
                    {"version": "2.0", "base_url": "https://dso.example.org/2/"},
                ],
            },
            endpoint="register",
        ),
        is_at("https://dso.example.org/2"),
    ),
    "a changed register": (
        Row(204, "", a_register("t-2", "https://dso.example.org/new/"), endpoint="register", method="PUT"),
        is_at("https://dso.example.org/new"),
    ),
    "an end": (Row(204, "", endpoint="register", method="DELETE", headers={"Content-Type": None}), ends),
    "an end with a body": (Row(204, "", a_register(), endpoint="register", method="DELETE"), ends),
}


@pytest.mark.parametrize("name", TAKEN)
async def test_what_is_taken_on_the_other_endpoints_gets_204_and_its_effect(tmp_path: Path, name: str) -> None:
    row, effect = TAKEN[name]
    async with a_world(tmp_path) as world:
        await world.register()
        answer = await send(world, row)
        assert (answer.status_code, answer.content) == (204, b""), answer.text
        assert world.refusals() == []
        assert effect(world)


LENIENT: dict[str, tuple[Mapping[str, Any], Row]] = {
    "a capacity as text": ({"numeric_strings": True}, Row(204, "", a_forecast(a_block(capacity="11.5")))),
    "a time without zone": ({"times_without_zone": "local"}, Row(204, "", a_timed("2026-03-01T16:00:00"))),
    "no request id": ({"request_id": "synthesise"}, Row(204, "", a_forecast(), headers={"X-Request-ID": None})),
}


@pytest.mark.parametrize("name", LENIENT)
async def test_what_a_dialect_allows_is_taken_from_that_peer_alone(tmp_path: Path, name: str) -> None:
    options, row = LENIENT[name]
    assert REJECTED[name].status == 400
    async with a_world(tmp_path, dso=a_peer("dso", options=options)) as world:
        await world.register()
        assert (await send(world, row)).status_code == 204
        assert isinstance(world.gate.events[-1], EnvelopeRevised)


ONLY_ONBOARDING: dict[str, Row] = {
    "a forecast": Row(403, "oscp.not-registered", a_forecast()),
    "a heartbeat": Row(403, "oscp.not-registered", {}, endpoint="heartbeat"),
    "a handshake": Row(403, "oscp.not-registered", {}, endpoint="handshake"),
    "a changed register": Row(403, "oscp.not-registered", a_register(), endpoint="register", method="PUT"),
    "an end": Row(403, "oscp.not-registered", endpoint="register", method="DELETE"),
}


@pytest.mark.parametrize("name", ONLY_ONBOARDING)
async def test_before_the_registration_nothing_else_is_taken(tmp_path: Path, name: str) -> None:
    row = ONLY_ONBOARDING[name]
    async with a_world(tmp_path) as world:
        assert (await send(world, row)).status_code == row.status
        assert world.refusals()[-1].code == row.code
        assert world.gate.commits == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_peer_that_the_configuration_provides_for_cannot_register_change_or_end(
    tmp_path: Path, method: str
) -> None:
    """At the next start the configuration would win, and neither side would know the other's token."""
    (tmp_path / "out").write_text("what-they-gave-us")
    options = {
        "onboarding": "provisioned",
        "address": "https://dso.example.org",
        "token_out_file": str(tmp_path / "out"),
    }
    async with a_world(tmp_path, dso=a_peer("dso", options=options)) as world:
        answer = await world.request(method, "register", a_register())
        assert (answer.status_code, world.refusals()[-1].code) == (403, "oscp.provisioned")
        assert (await world.post(FORECAST, a_forecast())).status_code == 204


async def test_the_same_again_gets_204_and_changes_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        same = {"X-Request-ID": "same"}
        await world.post(FORECAST, a_forecast(), headers=same)
        before = everything(world)
        assert (await world.post(FORECAST, a_forecast(), headers=same)).status_code == 204
        assert everything(world) == before
        assert world.refusals() == []


async def test_another_body_under_a_used_id_gets_400_and_changes_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        same = {"X-Request-ID": "same"}
        await world.post(FORECAST, a_forecast(), headers=same)
        before = everything(world)
        answer = await world.post(FORECAST, a_forecast(a_block(capacity=1)), headers=same)
        assert (answer.status_code, answer.json()) == (
            400,
            {"message": "X-Request-ID: request id reused with another body"},
        )
        assert world.refusals()[-1].code == "oscp.conflict"
        assert everything(world) == before


async def test_the_same_id_on_another_endpoint_is_another_message(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        same = {"X-Request-ID": "same"}
        assert (await world.post(FORECAST, a_forecast(), headers=same)).status_code == 204
        assert (await world.post("handshake", {}, headers=same)).status_code == 204


@pytest.mark.parametrize(("unit", "value"), [("A", 180_000), ("W", 180), ("KW", 180_000), ("WH", 90), ("KWH", 90_000)])
@pytest.mark.parametrize("type_", STREAMS)
async def test_every_type_takes_every_unit(tmp_path: Path, type_: str, unit: str, value: int) -> None:
    """180 over two hours: an amount of energy becomes the power that spends it evenly."""
    async with a_world(tmp_path) as world:
        await world.register()
        await world.post(FORECAST, a_forecast(a_block(unit=unit), type=type_))
        event = world.gate.events[-1]
        assert isinstance(event, EnvelopeRevised)
        assert event.blocks[0].value == value


# --- a peer that was away ------------------------------------------------------------------------


async def lose(world: World) -> None:
    await world.register()
    await world.handshake()
    world.clock.at += timedelta(minutes=5)


async def test_a_lost_peers_forecast_is_kept_and_does_not_bring_it_back(tmp_path: Path) -> None:
    """The controller leaves the fallback with a fresh forecast and a sign of life, not with one alone."""
    async with a_world(tmp_path) as world:
        await lose(world)
        heard = len([e for e in world.gate.events if isinstance(e, SourceHeard)])
        assert (await world.post(FORECAST, a_forecast())).status_code == 204
        assert isinstance(world.gate.events[-1], EnvelopeRevised)
        assert len([e for e in world.gate.events if isinstance(e, SourceHeard)]) == heard


async def test_a_lost_peer_comes_back_with_a_heartbeat(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await lose(world)
        assert (await world.post("heartbeat", {})).status_code == 204
        assert isinstance(world.gate.noted[-1], SourceHeard)


async def test_a_strict_peer_comes_back_with_a_handshake_alone(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", options={"handshake_required": True})) as world:
        await lose(world)
        for endpoint, body in (("heartbeat", {}), (FORECAST, a_forecast())):
            answer = await world.post(endpoint, body)
            assert (answer.status_code, answer.json()) == (403, {"message": "handshake required"})
        await world.handshake()
        assert json.loads(world.gate.rows["relation/dso"])["state"] == State.ONLINE
        assert (await world.post(FORECAST, a_forecast())).status_code == 204


async def test_a_promise_in_the_past_means_gone_now(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", options={"handshake_required": True})) as world:
        await world.register()
        await world.handshake()
        gone = (NOW - timedelta(seconds=1)).isoformat()
        assert (await world.post("heartbeat", {"offline_mode_at": gone})).status_code == 204
        assert (await world.post(FORECAST, a_forecast())).status_code == 403
