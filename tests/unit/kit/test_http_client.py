"""Whom we call, whom we refuse to call, and what we say when a call fails."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import (
    GatewayError,
    MalformedMessage,
    NotAuthorised,
    PeerTimeout,
    PeerUnreachable,
    TlsFailure,
)
from gateway.kit import http_client
from gateway.kit.http_client import HttpCaller, backoff
from gateway.pki.dev import DevPki
from gateway.ports.adapter import ClientIdentity
from tests.support.http import LAB, Recorder, serving

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.215.14"


def resolver(*addresses: str) -> Callable[[str, int], Awaitable[list[str]]]:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolve


def caller_to(host: str = "example.org", *addresses: str, **options: Any) -> HttpCaller:
    return HttpCaller(ClientIdentity(), url_hosts=[host], resolve=resolver(*(addresses or (PUBLIC,))), **options)


@respx.mock
@pytest.mark.parametrize("status", [200, 204, 301, 307, 400, 401, 404, 500, 503])
async def test_every_status_is_an_answer_and_none_is_followed(status: int) -> None:
    route = respx.post(f"https://{PUBLIC}/oscp").respond(
        status, headers={"location": "https://192.0.2.1/"}, text="said"
    )
    answer = await caller_to().post("https://example.org/oscp", headers={"x-request-id": "1"}, content=b"{}")
    assert (answer.status, answer.body) == (status, b"said")
    assert route.call_count == 1


@respx.mock
async def test_the_call_goes_to_the_checked_address_under_the_hosts_name() -> None:
    route = respx.post(f"https://{PUBLIC}/a?b=c").respond(204)
    await caller_to().post("https://example.org/a?b=c", headers={"authorization": "Token t"}, content=b"x")
    request = route.calls.last.request
    assert request.headers["host"] == "example.org"
    assert request.headers["authorization"] == "Token t"
    assert request.extensions["sni_hostname"] == "example.org"
    assert request.content == b"x"


@respx.mock
async def test_no_proxy_from_the_environment_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    respx.post(f"https://{PUBLIC}/").respond(204)
    assert (await caller_to().post("https://example.org/", headers={}, content=b"")).status == 204


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://127.0.0.1/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "//example.org/",
        "https:///x",
        "https://example.org:8443/",
        "https://example.com/",
        "https://example.org.example.com/",
        "https://example.com#@example.org/",
        "https://example.com\\@example.org/",
        "https://user:secret@example.org/",
        "https://example.org/#fragment",
        "https://example.org/a b",
        "https://example.org/\r\nx: y",
        "https://example.org:99999/",
        "https://[::1/",
        "https://exämple.org/",
        "https://example.org/" + "a" * 2048,
        "",
    ],
)
def test_a_url_that_was_not_allowed_is_not_called(url: str) -> None:
    with pytest.raises(NotAuthorised):
        caller_to().check_url(url)


@given(st.text(max_size=40) | st.from_regex(r"https?://[a-z.@:\[\]#?/\\%0-9]{0,30}", fullmatch=True))
def test_any_text_is_an_allowed_url_or_refused(url: str) -> None:
    try:
        caller_to().check_url(url)
    except NotAuthorised:
        return
    assert url.lower().startswith(("https://example.org", "https://example.org:443"))


@pytest.mark.parametrize("host", ["example.org", "EXAMPLE.org", "example.org:443"])
@pytest.mark.parametrize("url", ["https://example.org/x", "https://Example.Org:443/x", "https://example.org"])
def test_the_schemes_port_and_letter_case_do_not_matter(host: str, url: str) -> None:
    caller_to(host).check_url(url)


NEVER = ["169.254.169.254", "0.0.0.0", "::", "224.0.0.1", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]  # noqa: S104 - refused
PRIVATE = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
PRIVATE += ["64:ff9b::a00:1", "2002:a00:1::1"]


@pytest.mark.parametrize("address", [*NEVER, *PRIVATE])
async def test_a_name_that_resolves_inwards_is_not_called(address: str) -> None:
    """Also when it resolves outwards as well: which of the two is used would be luck."""
    with pytest.raises(NotAuthorised, match="may not be called"):
        await caller_to("example.org", PUBLIC, address).post("https://example.org/", headers={}, content=b"")


@pytest.mark.parametrize("address", NEVER)
async def test_link_local_addresses_are_not_called_even_when_private_ones_may_be(address: str) -> None:
    with pytest.raises(NotAuthorised):
        await caller_to("example.org", address, allow_private=True).post(
            "https://example.org/", headers={}, content=b""
        )


@respx.mock
@pytest.mark.parametrize("address", PRIVATE)
async def test_private_addresses_are_called_when_allowed(address: str) -> None:
    respx.post(host=address).respond(204)
    caller = caller_to("example.org", address, allow_private=True)
    assert (await caller.post("https://example.org/", headers={}, content=b"")).status == 204


@pytest.mark.parametrize("url", ["http://example.org/", "http://10.0.0.1/"])
def test_plain_http_leaves_loopback_never(url: str) -> None:
    caller = HttpCaller(
        ClientIdentity(), url_hosts=["example.org", "10.0.0.1"], allow_private=True, allow_insecure=True
    )
    with pytest.raises(NotAuthorised, match="plain HTTP"):
        caller.check_url(url)


async def test_plain_http_to_a_localhost_that_lies_elsewhere_is_refused() -> None:
    caller = caller_to("localhost:80", "10.0.0.1", allow_private=True, allow_insecure=True)
    with pytest.raises(NotAuthorised):
        await caller.post("http://localhost/", headers={}, content=b"")


@respx.mock
async def test_a_second_address_is_tried_when_the_first_takes_no_connection() -> None:
    respx.post(host="192.0.2.1").mock(side_effect=httpx.ConnectError("refused"))
    respx.post(host="192.0.2.2").respond(204)
    caller = caller_to("example.org", "192.0.2.1", "192.0.2.2", allow_private=True)
    assert (await caller.post("https://example.org/", headers={}, content=b"")).status == 204


@respx.mock
@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (httpx.ConnectError("refused"), PeerUnreachable),
        (httpx.ConnectTimeout("slow"), PeerUnreachable),
        (httpx.ReadTimeout("slow"), PeerTimeout),
        (httpx.ReadError("reset"), PeerUnreachable),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), PeerUnreachable),
        (httpx.RemoteProtocolError("illegal status line"), MalformedMessage),
    ],
)
async def test_what_breaks_is_told_in_our_words(problem: Exception, error: type[GatewayError]) -> None:
    respx.post(host=PUBLIC).mock(side_effect=problem)
    with pytest.raises(error, match=r"example\.org"):
        await caller_to().post("https://example.org/", headers={}, content=b"")


async def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    caller = HttpCaller(ClientIdentity(), url_hosts=["example.org"], resolve=nowhere)
    with pytest.raises(PeerUnreachable, match="Name or service"):
        await caller.post("https://example.org/", headers={}, content=b"")


def calling(pki: DevPki, port: int, **options: Any) -> HttpCaller:
    return HttpCaller(pki.client, url_hosts=[f"localhost:{port}", f"127.0.0.1:{port}"], allow_private=True, **options)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_over_real_tls_the_other_side_sees_our_certificate(dev_pki: DevPki, host: str) -> None:
    app = Recorder()
    async with serving(dev_pki.settings("grid"), app) as listener:
        caller = calling(dev_pki, listener.port)
        url = f"https://{host}:{listener.port}/oscp"
        for _ in range(2):
            assert (await caller.post(url, headers={}, content=b"{}")).status == 200
        await caller.aclose()
    assert app.peers[0].san_uris == ("urn:gridgate:gateway:depot",)
    assert app.peers[0] is app.peers[1], "the second call reuses the first one's connection"


async def test_a_server_that_we_do_not_trust_is_a_tls_failure_about_its_certificate(dev_pki: DevPki) -> None:
    async with serving(dev_pki.settings("ocpp")) as listener:
        caller = calling(dev_pki, listener.port)
        with pytest.raises(TlsFailure, match="certificate of localhost") as caught:
            await caller.post(f"https://localhost:{listener.port}/", headers={}, content=b"")
        await caller.aclose()
    assert caught.value.code == "transport.tls-certificate"


async def test_a_server_of_another_name_is_a_tls_failure(dev_pki: DevPki) -> None:
    async with serving(dev_pki.settings("grid")) as listener:
        caller = HttpCaller(
            dev_pki.client,
            url_hosts=[f"example.org:{listener.port}"],
            allow_private=True,
            resolve=resolver("127.0.0.1"),
        )
        with pytest.raises(TlsFailure, match=r"example\.org"):
            await caller.post(f"https://example.org:{listener.port}/", headers={}, content=b"")
        await caller.aclose()


async def test_one_address_with_two_names_is_verified_for_each(dev_pki: DevPki) -> None:
    """A connection that was verified for one name must not serve another one."""
    async with serving(dev_pki.settings("grid")) as listener:
        hosts = [f"localhost:{listener.port}", f"example.org:{listener.port}"]
        caller = HttpCaller(dev_pki.client, url_hosts=hosts, allow_private=True, resolve=resolver("127.0.0.1"))
        assert (await caller.post(f"https://{hosts[0]}/", headers={}, content=b"")).status == 200
        with pytest.raises(TlsFailure):
            await caller.post(f"https://{hosts[1]}/", headers={}, content=b"")
        await caller.aclose()


@pytest.mark.parametrize("shown", ["nothing", "a stranger"])
async def test_a_server_that_refuses_our_certificate_is_a_tls_failure(dev_pki: DevPki, shown: str) -> None:
    server_ca = dev_pki.listeners["grid"].server_ca
    identity = ClientIdentity(server_ca=server_ca)
    if shown == "a stranger":
        identity = replace(dev_pki.stations["CP-1"], server_ca=server_ca)
    async with serving(dev_pki.settings("grid")) as listener:
        caller = HttpCaller(identity, url_hosts=[f"localhost:{listener.port}"], allow_private=True)
        with pytest.raises(TlsFailure):
            await caller.post(f"https://localhost:{listener.port}/", headers={}, content=b"x")
        await caller.aclose()


@asynccontextmanager
async def answering(raw: bytes, context: ssl.SSLContext | None = None, *, hangs: bool = False) -> AsyncIterator[int]:
    """A server that says ``raw`` and closes, or says nothing more."""
    release = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(raw)
        if hangs:
            await release.wait()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        release.set()
        server.close()


def plain(port: int, **options: Any) -> HttpCaller:
    return HttpCaller(
        ClientIdentity(), url_hosts=[f"127.0.0.1:{port}"], allow_private=True, allow_insecure=True, **options
    )


async def test_plain_http_to_loopback_works_when_both_are_allowed() -> None:
    async with serving(LAB) as listener:
        caller = plain(listener.port)
        assert (await caller.post(f"{listener.url}/", headers={}, content=b"x")).body == b"ok"
        await caller.aclose()


async def test_silence_is_a_timeout() -> None:
    async with answering(b"", hangs=True) as port:
        caller = plain(port, total_timeout_s=0.1)
        with pytest.raises(PeerTimeout):
            await caller.post(f"http://127.0.0.1:{port}/", headers={}, content=b"")
        await caller.aclose()


async def test_an_answer_without_end_is_refused() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n"
    async with answering(head + b"a" * (http_client.MAX_RESPONSE_BYTES + 1), hangs=True) as port:
        caller = plain(port)
        with pytest.raises(MalformedMessage, match="more than"):
            await caller.post(f"http://127.0.0.1:{port}/", headers={}, content=b"")
        await caller.aclose()


@pytest.mark.parametrize("raw", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"])
async def test_half_an_answer_or_none_in_http_is_the_peers_mistake(raw: bytes) -> None:
    async with answering(raw) as port:
        caller = plain(port)
        with pytest.raises(MalformedMessage):
            await caller.post(f"http://127.0.0.1:{port}/", headers={}, content=b"")
        await caller.aclose()


async def test_nobody_listening_is_unreachable() -> None:
    async with answering(b"") as port:
        pass
    caller = plain(port)
    with pytest.raises(PeerUnreachable):
        await caller.post(f"http://127.0.0.1:{port}/", headers={}, content=b"")
    await caller.aclose()


@given(st.integers(0, 10_000), st.integers())
def test_pauses_stay_between_a_second_and_a_minute(attempt: int, seed: int) -> None:
    assert 1.0 <= backoff(attempt, random.Random(seed)) <= min(60.0, 2.0 ** min(attempt + 1, 16))


def test_pauses_of_many_callers_spread_over_the_whole_minute() -> None:
    pauses = [backoff(10, random.Random(seed)) for seed in range(200)]
    assert min(pauses) < 5.0
    assert max(pauses) > 55.0
