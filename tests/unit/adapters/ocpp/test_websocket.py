"""Frames as they may come: in pieces, in fragments, many at once, early, and what no frame may be."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import Server, ServerConnection
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from adapters.ocpp import websocket
from adapters.ocpp.transport import OcppRunning
from adapters.ocpp.wire.frames import MAX_FRAME_BYTES
from gateway.domain.events import MessageRefused, StationDisconnected
from tests.support.ocpp import PATIENCE_S, FakeGate, a_station, until
from tests.support.ocpp_socket import a_gateway, a_socket, call

pytestmark = pytest.mark.anyio

TEXT, CONT, CLOSE, PING, PONG = 1, 0, 8, 9, 10


def a_beat(name: str, padding: int = 0) -> bytes:
    return json.dumps([2, name, "Heartbeat", {}]).encode() + b" " * padding


def a_frame(payload: bytes, kind: int = TEXT, *, final: bool = True, is_masked: bool = True) -> bytes:
    """As a client writes it, with a mask that changes every byte."""
    size, first = len(payload), (0x80 if final else 0) | kind
    bit = 0x80 if is_masked else 0
    head = bytes((first, bit | size)) if size < 126 else struct.pack("!BBH", first, bit | 126, size & 0xFFFF)
    head = head if size < 65_536 else struct.pack("!BBQ", first, bit | 127, size)
    if not is_masked:
        return head + payload
    mask = bytes((1, 2, 3, 4))
    stretched = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload) ^ int.from_bytes(stretched)).to_bytes(size)


class Wire:
    """A client that knows no WebSocket but what is written here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def frame(self) -> tuple[int, bytes]:
        """The next frame but for CALLs."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                first, size = await self.reader.readexactly(2)
                if size == 126:
                    (size,) = struct.unpack("!H", await self.reader.readexactly(2))
                payload = await self.reader.readexactly(size)
                if not payload.startswith(b"[2"):
                    return first & 15, payload

    async def answered(self) -> str:
        """The id of the next answer."""
        kind, payload = await self.frame()
        assert (kind, payload[:2]) == (TEXT, b"[3")
        return str(json.loads(payload)[1])


@asynccontextmanager
async def a_wire(running: OcppRunning, early: bytes = b"") -> AsyncIterator[Wire]:
    """Connected as CP-1; ``early`` is sent with the request, before its answer is known."""
    (port,) = running.ports.values()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        "GET /CP-1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\r\n"
    )
    writer.write(head.encode() + early)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        # The other end may have been first.
        with suppress(ConnectionError):
            await writer.wait_closed()


def a_known_gate() -> FakeGate:
    return FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}"})


@pytest.mark.parametrize("padding", [0, 1_000, 60_000])
async def test_a_frame_in_pieces_is_one_message(padding: int):
    async with a_gateway(a_known_gate(), a_station()) as running, a_wire(running) as wire:
        whole = a_frame(a_beat("a", padding)) + a_frame(a_beat("b"))
        for cut in (1, 2, 3, 5, 7, 20, len(whole) - 3):
            for piece in (whole[:cut], whole[cut:]):
                wire.writer.write(piece)
                await wire.writer.drain()
                await asyncio.sleep(0)
            assert [await wire.answered(), await wire.answered()] == ["a", "b"]


async def test_a_message_in_fragments_with_a_ping_in_between_is_one_message():
    async with a_gateway(a_known_gate(), a_station()) as running, a_wire(running) as wire:
        text = a_beat("é" * 10)
        parts = [a_frame(text[:5], final=False), a_frame(b"hi", PING), a_frame(text[5:9], CONT, final=False)]
        wire.writer.write(b"".join((*parts, a_frame(text[9:], CONT), a_frame(a_beat("next")))))
        assert await wire.frame() == (PONG, b"hi")
        assert await wire.answered() == "é" * 10
        assert await wire.answered() == "next"


async def test_many_messages_at_once_are_answered_in_order_and_others_are_served_between():
    gate = FakeGate(rows={"boot/CP-1": b"{}", "boot/CP-2": b"{}"})
    async with a_gateway(gate, a_station(), a_station("CP-2")) as running:
        async with a_wire(running) as wire, a_socket(running, "CP-2") as other:
            wire.writer.write(b"".join(a_frame(a_beat(str(n))) for n in range(1_000)))
            assert (await call(other, "Heartbeat", {}))[0] == 3
            assert [await wire.answered() for _ in range(1_000)] == [str(n) for n in range(1_000)]


async def test_frames_that_come_with_the_request_are_served():
    both = a_frame(a_beat("a")) + a_frame(a_beat("b"))
    for cut in (0, 4, 12, len(both)):
        async with a_gateway(a_known_gate(), a_station()) as running, a_wire(running, both[:cut]) as wire:
            wire.writer.write(both[cut:])
            assert [await wire.answered(), await wire.answered()] == ["a", "b"]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (a_frame(a_beat("a"), is_masked=False), 1002),
        (b"\x91" + a_frame(a_beat("a"))[1:], 1002),
        (a_frame(a_beat("a"), 3), 1002),
        (a_frame(b"", CONT), 1002),
        (a_frame(b"[", final=False) + a_frame(a_beat("a")), 1002),
        (b"\x81\xff" + (2**40).to_bytes(8) + b"mask", 1009),
        (b"\x81\xff" + (70_000).to_bytes(8) + bytes(4) + b" " * 70_000, 1009),
        (a_frame(b'["\xff"]'), 1007),
        (a_frame(b'["', final=False) + a_frame(b'\xff"]', CONT), 1007),
    ],
    ids=[
        "unmasked",
        "reserved bit",
        "unknown kind",
        "no beginning",
        "no end",
        "too long",
        "too long and here",
        "no UTF-8",
        "parts no UTF-8",
    ],
)
async def test_what_is_no_frame_ends_the_connection_with_its_code(bad: bytes, code: int):
    gate = a_known_gate()
    async with a_gateway(gate, a_station()) as running, a_wire(running) as wire:
        await until(lambda: running.connected)
        wire.writer.write(a_frame(a_beat("good")) + bad + a_frame(a_beat("after")))
        assert await wire.answered() == "good"
        kind, payload = await wire.frame()
        assert (kind, int.from_bytes(payload[:2])) == (CLOSE, code)
        assert await wire.reader.read() == b""
        await until(lambda: gate.of(StationDisconnected))
    assert [r.code for r in gate.of(MessageRefused)] == ([str(code)] if code != 1002 else [])


async def test_a_station_that_answers_no_ping_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "PING_EVERY_S", 0.01)
    monkeypatch.setattr(websocket, "PONG_WITHIN_S", 0.01)
    gate = a_known_gate()
    async with a_gateway(gate, a_station()) as running, a_wire(running) as wire:
        assert await wire.frame() == (PING, b"")
        wire.writer.write(a_frame(b"", PONG))
        assert await wire.frame() == (PING, b"")
        kind, payload = await wire.frame()
        assert (kind, payload) == (CLOSE, struct.pack("!H", 1011) + b"keepalive ping timeout")
        await until(lambda: gate.of(StationDisconnected))


async def test_a_station_that_reads_nothing_is_cut_off():
    gate = a_known_gate()
    async with a_gateway(gate, a_station()) as running, a_wire(running) as wire:
        await until(lambda: running.connected)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a plain TCP transport has it
        beats = b"".join(a_frame(a_beat("x" * 120)) for _ in range(2_000))
        async with asyncio.timeout(PATIENCE_S):
            while not gate.of(StationDisconnected):
                wire.writer.write(beats)
                await asyncio.sleep(0)
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a plain TCP transport has it


# --- against the library alone ----------------------------------------------------------------


class NoPeer(asyncio.Transport):
    """A transport with nobody at the other end."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""

    def write_eof(self) -> None:
        """Nor the end of it."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        """Nothing to cut off."""

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """As above."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is kept back."""


NO_SERVER = cast(Server, None)
REQUEST = (
    b"GET /CP-1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def opened(protocol: ServerProtocol) -> None:
    """Shake hands."""
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))


async def read_by_us(chunks: list[bytes]) -> list[bytes]:
    found: list[bytes] = []
    protocol = ServerProtocol(max_size=MAX_FRAME_BYTES)
    socket = websocket.StationSocket(protocol, NO_SERVER)
    super(ServerConnection, socket).connection_made(NoPeer())  # the server would begin to serve
    protocol.receive_data(REQUEST)
    opened(protocol)
    socket._at_frame = True
    socket.serve(found.extend)
    for chunk in chunks:
        socket.data_received(chunk)
    super(ServerConnection, socket).connection_lost(None)
    assert socket._timer is not None
    socket._timer.cancel()
    return found


def read_by_the_library(chunks: list[bytes]) -> list[bytes]:
    found: list[bytes] = []
    parts: list[bytes] = []
    protocol = ServerProtocol(max_size=MAX_FRAME_BYTES)
    protocol.receive_data(REQUEST)
    opened(protocol)
    for chunk in chunks:
        protocol.receive_data(chunk)
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts.append(bytes(event.data))
            if event.fin:
                found.append(b"".join(parts))
                parts = []
    return found


SIZES = (0, 1, 124, 125, 126, 127, 300, MAX_FRAME_BYTES - 1, MAX_FRAME_BYTES)
FRAGMENTED = a_frame(b"[2,", final=False) + a_frame(b"", CONT, final=False) + a_frame(b"3]", CONT)
FRAMES = (
    *(a_frame(bytes([97 + n]) * size) for n, size in enumerate(SIZES)),
    a_frame("é".encode()),
    a_frame(b"", PING),
    a_frame(b"x" * 125, PONG),
    FRAGMENTED,
)


@given(st.permutations(FRAMES), st.sets(st.integers(0, sum(map(len, FRAMES))), max_size=12))
def test_what_is_read_is_what_the_library_alone_reads_in_all_chunkings(frames: list[bytes], cuts: set[int]):
    stream = b"".join(frames)
    chunks = [stream[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(stream)])]
    read = read_by_the_library(chunks)
    assert len(read) == len(FRAMES) - 2, "all but ping and pong"
    assert asyncio.run(read_by_us(chunks)) == read
