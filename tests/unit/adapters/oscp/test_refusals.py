"""Every refusal: its status, its ``{"message": ...}``, its record, and that it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.oscp.core import METHODS
from adapters.oscp.transport import REFUSALS_PER_MINUTE, status_of
from gateway.domain import errors
from gateway.domain.errors import ConfigError, GatewayError, IllegalTransition
from tests.unit.adapters.oscp.fakes import (
    FP,
    OTHER_ONBOARDING,
    World,
    a_block,
    a_forecast,
    a_peer,
    a_register,
    a_world,
)

pytestmark = pytest.mark.anyio

FORECAST = "update_group_capacity_forecast"


async def refused(world: World, status: int, response: Any) -> str:
    """The text of a refusal that has the right form and is on record."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert list(document) == ["message"]
    assert world.refusals()[-1].text.startswith(f"{status} {document['message']}")
    text: str = document["message"]
    return text


BROKEN_FORECASTS: dict[str, tuple[Mapping[str, Any], str]] = {
    "no blocks": (a_forecast(forecasted_blocks=[]), "forecasted_blocks"),
    "no type": ({k: v for k, v in a_forecast().items() if k != "type"}, "type"),
    "another type": (a_forecast(type="ADVICE"), "type"),
    "another unit": (a_forecast(a_block(unit="EUR")), "unit"),
    "another phase": (a_forecast(a_block(phase="FOUR")), "phase"),
    "negative capacity": (a_forecast(a_block(capacity=-0.001)), "capacity"),
    "capacity as text": (a_forecast(a_block(capacity="11.5")), "capacity"),
    "capacity as truth": (a_forecast(a_block(capacity=True)), "capacity"),
    "capacity beyond every grid": (a_forecast(a_block(capacity=1e13)), "capacity"),
    "time without zone": (a_forecast(a_block(start_time="2026-03-01T16:00:00")), "zone"),
    "time as a number": (a_forecast(a_block(start_time=1772380800)), "start_time"),
    "time as digits": (a_forecast(a_block(start_time="1772380800")), "start_time"),
    "end at start": (a_forecast(a_block(end_time="2026-03-01T16:00:00Z")), "end_time"),
    "end before start": (a_forecast(a_block(end_time="2026-03-01T15:59:59Z")), "end_time"),
    "further than 35 days": (a_forecast(a_block(end_time="2026-04-05T15:00:01Z")), "horizon"),
    "fallback further than 400 days": (
        a_forecast(a_block(end_time="2027-04-05T15:00:01Z"), type="FALLBACK_CONSUMPTION"),
        "horizon",
    ),
    "more blocks than allowed": (a_forecast(*[a_block()] * 1_001), "forecasted_blocks"),
    "a list": ([1], "body"),  # type: ignore[dict-item]  # wrong on purpose
}


@pytest.mark.parametrize("name", BROKEN_FORECASTS)
async def test_a_broken_forecast_is_refused_with_400_and_the_field(tmp_path: Path, name: str) -> None:
    body, named = BROKEN_FORECASTS[name]
    async with a_world(tmp_path) as world:
        await world.register()
        commits = world.gate.commits
        text = await refused(world, 400, await world.post(FORECAST, body))
        assert named in text
        assert world.gate.commits == commits


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"group_id":"DEPOT-7","group_id":"DEPOT-7"}',
        json.dumps(a_forecast()).replace("180", "NaN").encode(),
        json.dumps(a_forecast()).replace("180", "Infinity").encode(),
        json.dumps(a_forecast()).replace("180", "1e999999").encode(),
        json.dumps(a_forecast()).replace("180", "9" * 5_000).encode(),
        json.dumps(a_forecast()).replace("180", "0." + "9" * 100).encode(),
        b"[" * 100_000,
    ],
)
async def test_what_is_no_plain_json_is_refused_with_400(tmp_path: Path, content: bytes) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await refused(world, 400, await world.post(FORECAST, content=content))


@pytest.mark.parametrize(
    "value", [None, "Token", "Token ", "Bearer onboarding-token-of-dso", "onboarding-token-of-dso", "Token wrong"]
)
async def test_a_missing_malformed_or_unknown_token_is_401(tmp_path: Path, value: str | None) -> None:
    async with a_world(tmp_path) as world:
        response = await world.post("register", a_register(), headers={"Authorization": value})
        await refused(world, 401, response)
        assert response.headers["www-authenticate"] == "Token"
        assert world.gate.commits == 0


@pytest.mark.parametrize("scheme", ["Token", "token", "TOKEN"])
async def test_the_scheme_word_is_read_in_any_case(tmp_path: Path, scheme: str) -> None:
    async with a_world(tmp_path) as world:
        headers = {"Authorization": f"{scheme} {world.token}"}
        assert (await world.post("register", a_register(), headers=headers)).status_code == 204


async def test_another_peers_token_does_not_open_a_certificates_account(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await refused(world, 401, await world.post("register", a_register(), token=OTHER_ONBOARDING))
        assert world.refusals()[-1].message.peer == "dso", "the certificate says who tried"


async def test_a_certificate_of_nobody_is_403(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await refused(world, 403, await world.post("register", a_register(), certificate="stranger"))


async def test_a_peer_of_another_listener_is_unknown_here(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", listener="lab")) as world:
        response = await world.post("register", a_register(), certificate=None, token=OTHER_ONBOARDING, listener="lab")
        await refused(world, 401, response)


async def test_on_an_insecure_listener_the_token_alone_names_the_peer(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", listener="lab", certificate=None)) as world:
        response = await world.post("register", a_register(), certificate=None, listener="lab")
        assert response.status_code == 204


async def test_the_onboarding_token_is_good_for_a_registration_only(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        for endpoint in ("handshake", "heartbeat", FORECAST):
            await refused(world, 403, await world.post(endpoint, {}))
        await refused(world, 403, await world.request("DELETE", "register"))


async def test_a_group_of_another_peer_is_403_and_an_unknown_one_404(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        await refused(world, 403, await world.post(FORECAST, a_forecast(group_id="FOREIGN")))
        await refused(world, 404, await world.post(FORECAST, a_forecast(group_id="NOWHERE")))


@pytest.mark.parametrize("value", [None, "", " ", "a b", "é", "x" * 256])
async def test_a_request_id_is_1_to_255_visible_characters(tmp_path: Path, value: str | None) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        headers = {"X-Request-ID": value.encode("latin-1") if value else value}
        await refused(world, 400, await world.post(FORECAST, a_forecast(), headers=headers))  # type: ignore[arg-type]


async def test_a_request_id_with_another_body_is_refused_and_the_first_one_stands(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        same = {"X-Request-ID": "same"}
        assert (await world.post(FORECAST, a_forecast(), headers=same)).status_code == 204
        stored = len(world.gate.events)
        assert (await world.post(FORECAST, a_forecast(), headers=same)).status_code == 204
        text = await refused(world, 400, await world.post(FORECAST, a_forecast(a_block(capacity=1)), headers=same))
        assert "request id reused" in text
        assert len(world.gate.events) == stored


async def test_an_unknown_path_is_404_and_another_method_405(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await refused(world, 404, await world.post("adjust_group_capacity_forecast", {}))
        await refused(world, 404, await world.post("/oscp/cp/2.0/register", {}))
        await refused(world, 404, await world.post("heartbeat/", {}))
        response = await world.request("GET", "heartbeat")
        await refused(world, 405, response)
        assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": None},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "gzip"},
    ],
)
async def test_another_media_type_is_415(tmp_path: Path, headers: dict[str, str | None]) -> None:
    async with a_world(tmp_path) as world:
        content = json.dumps(a_register()).encode()
        await refused(world, 415, await world.post("register", content=content, headers=headers))


async def test_a_body_above_256_kib_is_413_and_ends_the_connection(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        response = await world.post(FORECAST, content=b" " * (256 * 1024 + 1))
        await refused(world, 413, response)
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize("versions", [["1.0"], ["3.0", "2.1"]])
async def test_a_registration_without_a_common_version_is_501(tmp_path: Path, versions: list[str]) -> None:
    async with a_world(tmp_path) as world:
        body = a_register()
        body["version_url"] = [{"version": v, "base_url": "https://dso.example.org/x"} for v in versions]
        await refused(world, 501, await world.post("register", body))


async def test_a_single_segment_is_an_ordinary_message(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        whole = {"X-Segment-Index": "1", "X-Segment-Count": "1"}
        assert (await world.post(FORECAST, a_forecast(), headers=whole)).status_code == 204


@pytest.mark.parametrize(
    "url",
    [
        "http://dso.example.org/oscp/cp/2.0",
        "https://elsewhere.example.org/oscp/cp/2.0",
        "https://dso.example.org/oscp/cp/2.0?to=",
        "https://dso.example.org/oscp#",
    ],
)
async def test_a_registration_cannot_send_us_elsewhere(tmp_path: Path, url: str) -> None:
    async with a_world(tmp_path) as world:
        await refused(world, 400, await world.post("register", a_register(url=url)))


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "x" * 513])
async def test_a_token_that_no_header_can_carry_is_refused(tmp_path: Path, token: str) -> None:
    async with a_world(tmp_path) as world:
        await refused(world, 400, await world.post("register", a_register(token)))


async def test_an_answer_to_no_registration_of_ours_is_refused(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        headers = {"X-Correlation-ID": "never-sent"}
        await refused(world, 400, await world.post("register", a_register(), headers=headers))


async def test_a_header_given_twice_is_refused(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        app = world.running.asgi["grid"]
        sent: list[Any] = []
        headers = [(b"authorization", b"Token a"), (b"authorization", b"Token b")]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            sent.append(message)

        from gateway.kit.peer import EXTENSION
        from tests.unit.adapters.oscp.fakes import info_of

        scope = {
            "type": "http",
            "method": "POST",
            "path": f"{FP}/heartbeat",
            "headers": headers,
            "query_string": b"",
            "extensions": {EXTENSION: info_of("dso")},
        }
        await app(scope, receive, send)
        assert sent[0]["status"] == 400


async def test_without_a_durable_store_nothing_is_acknowledged_and_nothing_told(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.register()
        world.gate.is_broken = True
        response = await world.post(FORECAST, a_forecast())
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.json() == {"message": "temporarily unavailable"}
        world.gate.is_broken = False
        assert (await world.post(FORECAST, a_forecast())).status_code == 204


async def test_a_registration_that_was_not_stored_changed_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        world.gate.is_broken = True
        assert (await world.post("register", a_register())).status_code == 503
        world.gate.is_broken = False
        await world.register()


async def test_before_the_start_everything_is_503(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert (await world.post("register", a_register())).status_code == 503


async def test_strangers_cannot_fill_the_log_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        for _ in range(REFUSALS_PER_MINUTE + 5):
            await world.post("heartbeat", {}, token="wrong")
        assert len(world.refusals()) == REFUSALS_PER_MINUTE
        await world.clock.advance(60)
        await world.post("heartbeat", {}, token="wrong")
        assert world.refusals()[-1].text.endswith("(5 more not recorded)")


async def test_no_refusal_repeats_a_token(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        response = await world.post("register", a_register(url="http://x"), token="secret-secret-secret")
        assert "secret-secret" not in response.text + repr(world.refusals())


@pytest.mark.parametrize("endpoint", [e for e in METHODS if e in ("heartbeat", FORECAST)])
async def test_a_strict_dialect_wants_a_handshake_first(tmp_path: Path, endpoint: str) -> None:
    async with a_world(tmp_path, dso=a_peer("dso", options={"handshake_required": True})) as world:
        await world.register()
        body = a_forecast() if endpoint == FORECAST else {}
        assert await refused(world, 403, await world.post(endpoint, body)) == "handshake required"
        await world.handshake()
        assert (await world.post(endpoint, body)).status_code == 204


def _tree(cls: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _tree(sub)


@pytest.mark.parametrize("cls", sorted(set(_tree(errors.GatewayError)), key=lambda c: c.__qualname__))
def test_every_error_has_an_answer(cls: type[GatewayError]) -> None:
    if cls is IllegalTransition:
        problem: GatewayError = IllegalTransition("a", "b")
    elif cls is ConfigError:
        problem = ConfigError(())
    else:
        problem = cls("text")
    assert 400 <= status_of(problem) < 600
