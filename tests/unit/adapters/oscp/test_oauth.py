"""Access tokens by OAuth2 client credentials: fetched, kept, renewed, refused, and never shown."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from adapters.oscp.oauth import LIFE_MAX_S, LIFE_UNSAID_S, ClientCredentials, TokenSource
from gateway.domain.effects import OutboxItem
from gateway.domain.errors import ConfigError, NotAuthorised, PeerTimeout, TlsFailure
from gateway.domain.ids import PeerId
from gateway.infra.http_server import HttpListener
from gateway.kit.asgi import read_body, respond_json
from gateway.kit.http_client import HttpCaller
from gateway.pki.dev import DevPki
from gateway.ports.adapter import ClientIdentity
from gateway.ports.grid import Delivery, DeliveryStatus
from tests.unit.adapters.oscp.fakes import Answer, Call, FakeLine, RealClock, StillClock, World, a_peer, a_world

pytestmark = pytest.mark.anyio

URL = "https://dso.example.org/oauth/token"
CP = "https://dso.example.org/oscp/cp/2.0"
SECRET = "s3cret/of:the client"


def an_answer(token: str = "jwt-1", **changes: Any) -> Answer:
    document = {"access_token": token, "token_type": "Bearer", "expires_in": 3_600, **changes}
    return Answer(200, body=json.dumps({k: v for k, v in document.items() if v is not None}).encode())


def a_dso(folder: Path, **options: Any) -> Any:
    (folder / "secret").write_text(SECRET + "\n")
    given = {
        "address": CP,
        "handshake_start": "cp",
        "token_url": URL,
        "client_id": "grid gate",
        "client_secret_file": str(folder / "secret"),
        **options,
    }
    return a_peer("dso", dialect="vector-derms", options={k: v for k, v in given.items() if v is not None})


async def tell(world: World, ident: str = "e-1") -> Delivery:
    """Deliver something to the peer."""
    assert world.running.carrier is not None
    item = OutboxItem(ident, PeerId("dso"), "compliance_error", {"message": "m"}, "q-1")
    return await world.running.carrier.deliver(item)


def fetches(world: World) -> list[Call]:
    return [call for call in world.line.calls if call.url == URL]


def told_with(world: World) -> list[str]:
    return [call.headers["Authorization"] for call in world.line.to("group_capacity_compliance_error")]


async def test_a_token_is_fetched_as_the_client_and_shown_to_the_peer(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_dso(tmp_path, scope="oscp write")) as world:
        world.line.answers = [an_answer()]
        assert (await tell(world)).status is DeliveryStatus.DONE
        (fetch,) = fetches(world)
    assert fetch.method == "POST"
    assert fetch.headers["Content-Type"] == "application/x-www-form-urlencoded"
    scheme, _, pair = fetch.headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair)) == ("Basic", b"grid+gate:s3cret%2Fof%3Athe+client")
    assert parse_qs(fetch.content.decode()) == {"grant_type": ["client_credentials"], "scope": ["oscp write"]}
    assert told_with(world) == ["Bearer jwt-1"]


async def test_without_a_scope_none_is_asked_for(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.answers = [an_answer()]
        await tell(world)
        assert fetches(world)[0].content == b"grant_type=client_credentials"


async def test_the_token_endpoint_does_not_get_the_headers_that_the_peer_wants(tmp_path: Path) -> None:
    (tmp_path / "headers.json").write_text('{"apikey": "k-1"}')
    async with a_world(tmp_path, dso=a_dso(tmp_path, headers_file=str(tmp_path / "headers.json"))) as world:
        world.line.answers = [an_answer()]
        await tell(world)
        assert "apikey" not in fetches(world)[0].headers
        assert world.line.calls[-1].headers["apikey"] == "k-1"


@pytest.mark.parametrize(
    ("expires_in", "good_for_s"),
    [
        (3_600, 3_570),
        ("3600", 3_570),
        (100, 90),
        (10**9, LIFE_MAX_S - 30),
        *((unsaid, LIFE_UNSAID_S - 30) for unsaid in (None, "soon", True, -5)),
    ],
)
async def test_a_token_is_kept_until_shortly_before_its_end(tmp_path: Path, expires_in: Any, good_for_s: float) -> None:
    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.answers = [an_answer(expires_in=expires_in)]
        await tell(world, "e-1")
        await world.clock.advance(good_for_s - 1)
        await tell(world, "e-2")
        assert len(fetches(world)) == 1
        world.line.answers = [an_answer("jwt-2")]
        await world.clock.advance(1)
        await tell(world, "e-3")
        assert told_with(world) == ["Bearer jwt-1", "Bearer jwt-1", "Bearer jwt-2"]


async def test_a_token_of_no_life_at_all_is_used_for_the_call_that_it_was_fetched_for(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.answers = [an_answer(expires_in=0), Answer(), an_answer("jwt-2")]
        await tell(world, "e-1")
        await tell(world, "e-2")
        assert told_with(world) == ["Bearer jwt-1", "Bearer jwt-2"]


async def test_a_token_that_the_peer_no_longer_takes_is_replaced_once(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.answers = [an_answer(), Answer(401), an_answer("jwt-2"), Answer(204)]
        assert (await tell(world)).status is DeliveryStatus.DONE
        assert told_with(world) == ["Bearer jwt-1", "Bearer jwt-2"]
        ids = {call.headers["X-Request-ID"] for call in world.line.to("group_capacity_compliance_error")}
        assert len(ids) == 1
        world.line.answers = [Answer(401), an_answer("jwt-3"), Answer(401)]
        assert (await tell(world, "e-2")).status is DeliveryStatus.DEAD, "not a third time"


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (Answer(401, body=b'{"error": "invalid_client"}'), DeliveryStatus.DEAD, "oscp.token-refused"),
        (Answer(400, body=b"no json"), DeliveryStatus.DEAD, "oscp.token-refused"),
        (Answer(302, {"location": "https://elsewhere.example.org"}), DeliveryStatus.DEAD, "oscp.token-refused"),
        (Answer(429), DeliveryStatus.RETRY, "oscp.token-unavailable"),
        (Answer(503), DeliveryStatus.RETRY, "oscp.token-unavailable"),
        (PeerTimeout("slow"), DeliveryStatus.RETRY, "transport.peer-timeout"),
        (Answer(200, body=b"{}"), DeliveryStatus.RETRY, "oscp.token-malformed"),
        (Answer(200, body=b"[" * 10_000), DeliveryStatus.RETRY, "oscp.token-malformed"),
        (an_answer(token_type="mac"), DeliveryStatus.RETRY, "oscp.token-malformed"),
        (an_answer("two words"), DeliveryStatus.RETRY, "oscp.token-malformed"),
        (an_answer("line\r\nbreak"), DeliveryStatus.RETRY, "oscp.token-malformed"),
        (an_answer("x" * 8_193), DeliveryStatus.RETRY, "oscp.token-malformed"),
    ],
)
async def test_without_a_token_nothing_is_sent_and_the_delivery_says_why(
    tmp_path: Path, answer: Any, status: DeliveryStatus, code: str
) -> None:
    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.answers = [answer]
        delivery = await tell(world)
        assert (delivery.status, delivery.detail.partition(":")[0]) == (status, code)
        assert told_with(world) == []


async def test_the_endpoints_own_words_are_repeated_only_where_the_standard_has_them(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.answers = [Answer(400, body=b'{"error": "invalid_scope"}'), Answer(400, body=b'{"error": "jwt-9"}')]
        assert "invalid_scope" in (await tell(world)).detail
        assert "jwt-9" not in (await tell(world)).detail


async def test_many_calls_at_once_fetch_one_token() -> None:
    line = FakeLine(answers=[an_answer()])
    source = TokenSource(ClientCredentials(URL, "id", SECRET), line, StillClock())
    assert set(await asyncio.gather(*(source.token() for _ in range(5)))) == {"jwt-1"}
    assert len(line.calls) == 1


async def test_neither_secret_nor_token_is_ever_shown_or_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.answers = [an_answer("jwt-1"), Answer(401), Answer(400, body=SECRET.encode())]
        delivery = await tell(world)
        shown = [caplog.text, repr(delivery), repr(world.gate.events), repr(world.gate.rows), repr(world.running)]
        source = TokenSource(ClientCredentials(URL, "id", SECRET), world.line, world.clock)
        shown += [repr(source), repr(ClientCredentials(URL, "id", SECRET)), repr(world.running._links)]
    assert delivery.status is DeliveryStatus.DEAD
    assert not [text for text in shown if SECRET in text or "jwt-1" in text]


async def test_after_a_restart_a_token_is_fetched_anew_and_the_relation_is_there(tmp_path: Path) -> None:
    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.answers = [an_answer(), Answer(), an_answer("jwt-2")]
        await tell(world)
        await world.restart()
        assert (await tell(world, "e-2")).status is DeliveryStatus.DONE
        assert told_with(world) == ["Bearer jwt-1", "Bearer jwt-2"]
        assert world.running.operator is not None
        await world.running.operator.handshake(PeerId("dso"))


@pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.7"])
async def test_a_token_endpoint_whose_name_leads_inside_is_never_called(tmp_path: Path, address: str) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return [address]

    async with a_world(tmp_path, dso=a_dso(tmp_path)) as world:
        world.line.through = HttpCaller(ClientIdentity(), url_hosts=("dso.example.org",), resolve=resolve)
        delivery = await tell(world)
    assert (delivery.status, delivery.detail.partition(":")[0]) == (DeliveryStatus.DEAD, "peer.address")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"token_url": "https://elsewhere.example.org/token"}, "token_url"),
        ({"token_url": "http://dso.example.org/token"}, "token_url"),
        ({"client_id": None}, "client_id"),
        ({"client_id": "a\nb"}, "client_id"),
        ({"client_secret_file": None}, "client_secret_file"),
        ({"client_secret_file": "/does/not/exist"}, "client_secret_file"),
        ({"scope": "ä"}, "scope"),
        ({"token_out_file": "/some/file"}, "token_url"),
        ({"onboarding": "register"}, "token_url"),
        ({"token_url": None}, "token_out_file"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_said_at_the_start(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        World(tmp_path, dso=a_dso(tmp_path, **options))
    assert [p.key.rpartition(".")[2] for p in caught.value.problems] == [named]
    assert SECRET not in repr(caught.value.problems)


# --- over TLS -------------------------------------------------------------------------------------


@asynccontextmanager
async def a_token_endpoint(pki: DevPki) -> AsyncIterator[HttpListener]:
    """An authorization server that grants whoever asks properly."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(scope, receive)
        is_right = scope["path"] == "/token" and body == b"grant_type=client_credentials"
        await respond_json(send, 200 if is_right else 400, {"access_token": "jwt-tls", "token_type": "bearer"})

    listener = HttpListener(pki.settings("grid"), app)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop(1)


def a_source(listener: HttpListener, identity: ClientIdentity, **changes: Any) -> TokenSource:
    allowed = {"url_hosts": (f"127.0.0.1:{listener.port}",), "allow_private": True, **changes}
    credentials = ClientCredentials(f"https://127.0.0.1:{listener.port}/token", "id", SECRET)
    return TokenSource(credentials, HttpCaller(identity, **allowed), RealClock())


async def test_a_token_is_fetched_over_tls_with_our_certificate(dev_pki: DevPki) -> None:
    async with a_token_endpoint(dev_pki) as listener:
        assert await a_source(listener, dev_pki.parties["dso"]).token() == "jwt-tls"


async def test_a_token_endpoint_that_tls_does_not_verify_never_sees_the_secret(dev_pki: DevPki) -> None:
    """The system's own anchors do not know the authority of the test."""
    async with a_token_endpoint(dev_pki) as listener:
        with pytest.raises(TlsFailure):
            await a_source(listener, ClientIdentity()).token()


async def test_a_token_endpoint_of_another_host_or_a_private_address_is_not_called(dev_pki: DevPki) -> None:
    async with a_token_endpoint(dev_pki) as listener:
        for changes in ({"url_hosts": ("dso.example.org",)}, {"allow_private": False}):
            with pytest.raises(NotAuthorised):
                await a_source(listener, dev_pki.parties["dso"], **changes).token()
