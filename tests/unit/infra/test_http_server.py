"""What one connection may cost, and whom an application meets."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.domain.errors import ConfigError, PeerUnreachable
from gateway.infra import http_guard, http_server
from gateway.infra.http_guard import GuardedHttp, Timeouts
from gateway.infra.http_server import ConnectionCap, HttpListener
from gateway.kit.asgi import BodyTooLarge, read_body, respond
from gateway.kit.peer import PeerInfo
from gateway.kit.tls import client_context
from gateway.pki.dev import DevPki
from gateway.ports.adapter import ClientIdentity, Trust
from tests.support.http import GET, LAB, PATIENCE_S, Recorder, Wire, bare_client, is_admitted, serving

pytestmark = pytest.mark.anyio

SHORT_S = 0.05
HEAD = b"GET / HTTP/1.1\r\n"


async def test_the_application_meets_the_certificate_that_the_handshake_proved(dev_pki: DevPki) -> None:
    app = Recorder()
    async with serving(dev_pki.settings("grid"), app) as listener:
        assert await is_admitted(listener, client_context(dev_pki.parties["dso"]))
    (peer,) = app.peers
    assert peer.san_uris == ("urn:gridgate:party:dso",)
    assert (peer.listener, peer.remote_addr, peer.tls_version) == ("grid", "127.0.0.1", "TLSv1.3")
    assert len(peer.cert_sha256) == len(peer.spki_sha256) == 64


async def test_on_an_insecure_listener_the_application_meets_a_peer_without_certificate() -> None:
    app = Recorder()
    async with serving(LAB, app) as listener:
        wire = await Wire.to(listener)
        await wire.send(GET)
        await wire.answer()
        wire.close()
    assert (app.peers[0].listener, app.peers[0].cert_sha256) == ("lab", "")


async def test_an_insecure_listener_outside_loopback_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        await HttpListener(replace(LAB, host="0.0.0.0"), Recorder()).start()  # noqa: S104 - refused, never bound
    assert caught.value.problems[0].code == "tls.insecure-outside-loopback"


async def test_a_port_in_use_is_named() -> None:
    async with serving(LAB) as listener:
        with pytest.raises(PeerUnreachable, match=f"127.0.0.1:{listener.port}"):
            await HttpListener(replace(LAB, port=listener.port), Recorder()).start()


async def test_answers_have_a_date_and_name_no_software() -> None:
    async with serving(LAB) as listener:
        wire = await Wire.to(listener)
        await wire.send(GET)
        head = (await wire.answer()).lower()
        wire.close()
    assert b"\r\ndate: " in head
    assert b"server:" not in head


def test_without_being_told_the_guard_uses_its_named_times() -> None:
    assert Timeouts() == Timeouts(5.0, 5.0, 30.0, 30.0, 30.0, 3600.0, 5.0, 1.0)


async def test_a_connection_without_a_byte_is_closed() -> None:
    async with serving(LAB, timeouts=Timeouts(first_byte_s=SHORT_S)) as listener:
        wire = await Wire.to(listener)
        assert await wire.until_closed() == b""
        wire.close()


@pytest.mark.parametrize("start", [b"G", HEAD, b"\r\n", HEAD + b"x: "])
async def test_headers_that_do_not_end_in_time_close_the_connection(start: bytes) -> None:
    app = Recorder()
    async with serving(LAB, app, timeouts=Timeouts(head_s=SHORT_S)) as listener:
        wire = await Wire.to(listener)
        await wire.send(start)
        assert await wire.until_closed() == b""
        wire.close()
    assert app.peers == []


async def test_dripping_header_bytes_gain_no_time() -> None:
    async with serving(LAB, timeouts=Timeouts(head_s=0.2)) as listener:
        wire = await Wire.to(listener)
        await wire.send(HEAD + b"x: ")
        drips = 0
        ended = asyncio.create_task(wire.until_closed())
        while drips < 100 and not (await asyncio.wait({ended}, timeout=0.02))[0]:
            wire.writer.write(b"x")
            drips += 1
        assert await ended == b""
        assert 0 < drips < 20
        wire.close()


async def test_a_second_request_has_to_end_its_headers_in_time_as_well() -> None:
    async with serving(LAB, timeouts=Timeouts(head_s=SHORT_S)) as listener:
        wire = await Wire.to(listener)
        await wire.send(GET)
        await wire.answer()
        await wire.send(HEAD)
        assert await wire.until_closed() == b""
        wire.close()


async def test_a_body_that_does_not_end_in_time_closes_the_connection() -> None:
    async with serving(LAB, timeouts=Timeouts(body_s=SHORT_S)) as listener:
        wire = await Wire.to(listener)
        await wire.send(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nhalf")
        assert await wire.until_closed() == b""
        wire.close()


async def test_an_idle_connection_is_closed_after_its_keep_alive() -> None:
    async with serving(LAB, timeouts=Timeouts(keep_alive_s=SHORT_S)) as listener:
        wire = await Wire.to(listener)
        await wire.send(GET)
        assert (await wire.until_closed()).startswith(b"HTTP/1.1 200")
        wire.close()


async def test_an_old_connection_ends_with_its_next_answer() -> None:
    async with serving(LAB, timeouts=Timeouts(lifetime_s=0.0)) as listener:
        wire = await Wire.to(listener)
        await wire.send(GET)
        assert b"connection: close" in await wire.until_closed()
        wire.close()


async def status_of(request: bytes) -> bytes:
    async with serving(LAB, timeouts=Timeouts(keep_alive_s=SHORT_S)) as listener:
        wire = await Wire.to(listener)
        await wire.send(request)
        received = await wire.until_closed()
        wire.close()
    return received[9:12]


def head_of(size: int) -> bytes:
    """A request whose method line and headers have ``size`` bytes."""
    start, end = b"GET / HTTP/1.1\r\nx: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


async def test_headers_up_to_the_limit_are_taken_and_one_slice_above_is_not() -> None:
    assert await status_of(head_of(http_guard.MAX_HEAD_BYTES)) == b"200"
    assert await status_of(head_of(http_guard.MAX_HEAD_BYTES + 1024)) == b"431"


async def test_a_long_request_line_counts_as_headers() -> None:
    assert await status_of(b"GET /" + b"a" * http_guard.MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n") == b"431"


async def test_a_hundred_header_fields_are_taken_and_one_more_is_not() -> None:
    fields = b"x: y\r\n" * http_guard.MAX_HEADERS
    assert await status_of(HEAD + fields + b"\r\n") == b"200"
    assert await status_of(HEAD + fields + b"x: y\r\n\r\n") == b"431"


async def test_a_large_body_is_no_large_header() -> None:
    size = 20 * http_guard.MAX_HEAD_BYTES
    request = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size + b"b" * size
    assert await status_of(request) == b"200"


@pytest.mark.parametrize("endless", [b"0\r\nx: ", b"1;"], ids=["trailer", "chunk extension"])
async def test_what_surrounds_a_body_is_bounded_too(endless: bytes) -> None:
    async with serving(LAB) as listener:
        wire = await Wire.to(listener)
        await wire.send(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + endless)
        await wire.send(b"a" * (http_guard.MAX_HEAD_BYTES + 8192))
        assert b" 200 " not in await wire.until_closed()
        wire.close()


async def test_trailers_never_become_headers() -> None:
    app = Recorder()
    async with serving(LAB, app) as listener:
        wire = await Wire.to(listener)
        await wire.send(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nauthorization: Token x\r\n\r\n")
        await wire.answer()
        wire.close()
    assert app.scopes[0]["headers"] == [(b"transfer-encoding", b"chunked")]


async def test_a_header_of_64_megabytes_is_refused_in_bounded_memory() -> None:
    part = b"a" * 65536
    sent = 0
    async with serving(LAB) as listener:
        wire = await Wire.to(listener)
        wire.writer.transport.set_write_buffer_limits(high=65536)
        tracemalloc.start()
        try:
            await wire.send(HEAD + b"x: ")
            for _ in range(1024):
                await wire.send(part)
                sent += len(part)
        except ConnectionError:
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await wire.until_closed()
        wire.close()
    assert sent < 64 * 1024 * 1024
    assert peak < 2 * 1024 * 1024


async def test_requests_cannot_be_queued_without_end() -> None:
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()

    async with serving(LAB, slow) as listener:
        wire = await Wire.to(listener)
        await wire.send(GET * (http_guard.MAX_PIPELINED + 3))
        assert await wire.until_closed() == b""
        wire.close()
        release.set()


async def test_queued_requests_are_answered_in_order() -> None:
    async with serving(LAB) as listener:
        wire = await Wire.to(listener)
        await wire.send(GET * 3)
        assert [(await wire.answer())[9:12] for _ in range(3)] == [b"200"] * 3
        wire.close()


async def test_a_request_to_change_the_protocol_is_answered_and_then_closed() -> None:
    async with serving(LAB) as listener:
        wire = await Wire.to(listener)
        await wire.send(HEAD + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n" + GET)
        received = await wire.until_closed()
        wire.close()
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in received


async def test_connections_above_the_cap_of_an_address_are_closed_and_places_are_given_back() -> None:
    cap = ConnectionCap(total=10, per_address=1)
    async with serving(LAB, cap=cap, timeouts=Timeouts(keep_alive_s=SHORT_S)) as listener:
        first = await Wire.to(listener)
        await first.send(GET)
        await first.answer()
        second = await Wire.to(listener)
        assert await second.until_closed() == b""
        await first.until_closed()
        third = await Wire.to(listener)
        await third.send(GET)
        assert b"200" in await third.answer()
        for wire in (first, second, third):
            wire.close()


def test_the_caps_count_in_all_and_by_address() -> None:
    cap = ConnectionCap(total=3, per_address=2)
    held = [cap.take("192.0.2.1"), cap.take("192.0.2.1")]
    assert cap.take("192.0.2.1") is None
    assert cap.take("192.0.2.2") is not None
    assert cap.take("192.0.2.3") is None
    assert held[0] is not None
    held[0].release()
    held[0].release()
    assert cap.take("192.0.2.3") is not None
    assert cap.take("192.0.2.4") is None


def test_one_ipv6_network_counts_as_one_address() -> None:
    cap = ConnectionCap(per_address=1)
    assert cap.take("2001:db8::1") is not None
    assert cap.take("2001:db8::ffff:2") is None
    assert cap.take("2001:db8:0:1::1") is not None


async def test_a_handshake_that_stalls_is_ended(dev_pki: DevPki) -> None:
    async with serving(dev_pki.settings("grid"), timeouts=Timeouts(handshake_s=SHORT_S)) as listener:
        wire = await Wire.to(listener)
        assert await wire.until_closed() == b""
        wire.close()
        assert listener.refused_handshakes == 1


async def test_handshakes_in_progress_are_bounded(dev_pki: DevPki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_HANDSHAKES", 1)
    async with serving(dev_pki.settings("grid")) as listener:
        stalled = await Wire.to(listener)
        refused = await Wire.to(listener)
        assert await refused.until_closed() == b""
        stalled.close()
        refused.close()


async def test_garbage_is_answered_with_400_and_a_close() -> None:
    assert await status_of(b"\x16\x03\x01 hello\r\n\r\n") == b"400"


async def test_a_client_that_never_reads_its_answer_is_cut_off() -> None:
    ended = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        gone = asyncio.create_task(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        ended.set()

    async with serving(LAB, endless, timeouts=Timeouts(stalled_write_s=SHORT_S)) as listener:
        wire = await Wire.to(listener)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
        await wire.send(GET)
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
        wire.close()


async def test_a_body_that_is_too_large_gets_its_refusal_through() -> None:
    async def bounded(scope: Any, receive: Any, send: Any) -> None:
        try:
            await read_body(scope, receive, limit=1000)
        except BodyTooLarge:
            await respond(send, 413, is_last=True)

    async with serving(LAB, bounded) as listener:
        wire = await Wire.to(listener)
        await wire.send(b"POST / HTTP/1.1\r\ncontent-length: 500000\r\n\r\n" + b"a" * 500_000)
        assert (await wire.until_closed()).startswith(b"HTTP/1.1 413")
        wire.close()


async def test_the_accept_loop_outlives_a_lack_of_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, [OSError(24, "Too many open files"), ConnectionAbortedError()]

    async def flaky(listening: Any) -> Any:
        if failures:
            raise failures.pop()
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", flaky)
    monkeypatch.setattr(http_server, "ACCEPT_PAUSE_S", 0.0)
    async with serving(LAB) as listener:
        wire = await Wire.to(listener)
        await wire.send(GET)
        assert b"200" in await wire.answer()
        wire.close()


class FakeTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False
        self.was_aborted = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True
        self.was_aborted.set()

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def connected(times: Timeouts) -> tuple[GuardedHttp, FakeTransport]:
    config = http_server.uvicorn_config(Recorder(), times)
    peer = PeerInfo("lab", "127.0.0.1")
    connection = GuardedHttp(config, ServerState(), peer, times, opened=lambda: None, closed=lambda: None)
    transport = FakeTransport()
    connection.connection_made(transport)
    return connection, transport


async def answer_to(parts: list[bytes]) -> bytes:
    """The status of the answer, or nothing, when a connection is fed ``parts``."""
    connection, transport = connected(Timeouts())
    for part in parts:
        if not transport.is_closing():
            connection.data_received(part)
    await asyncio.gather(*connection.tasks)
    connection.connection_lost(None)
    return transport.written[9:12]


async def test_a_last_answer_that_nobody_takes_does_not_keep_its_connection() -> None:
    connection, transport = connected(Timeouts(stalled_write_s=SHORT_S))
    connection.data_received(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    async with asyncio.timeout(PATIENCE_S):
        await transport.was_aborted.wait()
    assert transport.written.endswith(b"ok")
    connection.connection_lost(None)


REQUESTS = {
    b"200": b"POST /a?b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: x\r\n\r\n",
    b"431": head_of(http_guard.MAX_HEAD_BYTES + 100),
    b"400": b"GET\x00 / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("status", REQUESTS)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=8))
def test_how_a_request_is_cut_into_packets_changes_nothing(status: bytes, cuts: list[int]) -> None:
    request = REQUESTS[status]
    edges = [0, *sorted(cut % len(request) for cut in cuts), len(request)]
    parts = [request[start:end] for start, end in pairwise(edges) if start != end]
    assert asyncio.run(answer_to(parts)) == status


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_no_bytes_make_a_connection_raise(parts: list[bytes]) -> None:
    asyncio.run(answer_to([b"GET / HTTP/1.1\r\n", *parts]))


class Gate:
    """An application that answers when told to."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered.set()
        await self.release.wait()
        await Recorder()(scope, receive, send)


async def test_stopping_lets_a_running_request_end() -> None:
    gate = Gate()
    listener = HttpListener(LAB, gate)
    await listener.start()
    wire = await Wire.to(listener)
    await wire.send(GET)
    await gate.entered.wait()
    stopping = asyncio.create_task(listener.stop(5.0))
    gate.release.set()
    assert (await wire.until_closed()).endswith(b"ok")
    await stopping
    assert listener.connections == 0
    wire.close()


async def test_stopping_cuts_off_what_outlasts_the_grace() -> None:
    gate = Gate()
    listener = HttpListener(LAB, gate)
    await listener.start()
    wire = await Wire.to(listener)
    await wire.send(GET)
    await gate.entered.wait()
    await listener.stop(SHORT_S)
    assert b"200" not in await wire.until_closed()
    assert listener.connections == 0
    wire.close()


async def test_after_stopping_nobody_is_let_in() -> None:
    listener = HttpListener(LAB, Recorder())
    port = await listener.start()
    await listener.stop(0.0)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_unwelcome_peers_can_be_dropped(dev_pki: DevPki) -> None:
    async with serving(dev_pki.settings("grid")) as listener:
        wires = {name: await Wire.to(listener, client_context(dev_pki.parties[name])) for name in dev_pki.parties}
        for wire in wires.values():
            await wire.send(GET)
            await wire.answer()
        assert listener.drop(lambda peer: peer.subject_cn == "dso") == 1
        assert await wires["dso"].until_closed() == b""
        await wires["aggregator"].send(GET)
        assert b"200" in await wires["aggregator"].answer()
        for wire in wires.values():
            wire.close()


async def test_a_new_certificate_is_shown_to_new_connections_and_the_old_ones_go_on(
    dev_pki: DevPki, tmp_path: Any
) -> None:
    files = dev_pki.listeners["grid"]
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.write_bytes(files.certificate.read_bytes())
    key.write_bytes(files.key.read_bytes())
    key.chmod(0o600)
    settings = replace(dev_pki.settings("grid"), certificate=certificate, key=key)
    party = dev_pki.parties["dso"]
    async with serving(settings) as listener:
        old = await Wire.to(listener, client_context(party))
        await old.send(GET)
        await old.answer()
        # A party's certificate may serve as well, so it stands in for a renewed one.
        certificate.write_bytes(dev_pki.parties["aggregator"].certificate.read_bytes())  # type: ignore[union-attr]  # set by the fixture
        with pytest.raises(ConfigError):
            listener.reload()
        assert await is_admitted(listener, client_context(party))
        key.write_bytes(dev_pki.parties["aggregator"].key.read_bytes())  # type: ignore[union-attr]  # set by the fixture
        listener.reload()
        new = await Wire.to(listener, client_context(party))
        shown = new.writer.get_extra_info("peercert")["subject"]
        assert (("commonName", "aggregator"),) in shown
        for wire in (old, new):
            await wire.send(GET)
            assert b"200" in await wire.answer()
            wire.close()


async def test_server_tls_admits_clients_without_certificate_and_says_so(dev_pki: DevPki) -> None:
    app = Recorder()
    settings = replace(dev_pki.settings("grid"), trust=Trust.SERVER_TLS, client_ca=None)
    async with serving(settings, app) as listener:
        nobody = ClientIdentity(server_ca=dev_pki.listeners["grid"].server_ca)
        assert await is_admitted(listener, bare_client(nobody))
    assert (app.peers[0].tls_version, app.peers[0].cert_sha256) == ("TLSv1.3", "")
