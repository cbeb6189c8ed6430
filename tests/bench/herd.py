"""Many stations in a process of their own, as light as they can be: their CPU is nobody's whom we measure.

Each boots, answers what it is asked with fixed words, and says what it is told to say, one CALL in
flight as OCPP demands. Frames are made before the clock runs. It proves nothing about a protocol.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

from gateway.kit.tls import client_context
from gateway.ports.adapter import ClientIdentity
from tests.bench.frames import Maker, boot, call, maker

QUIET_S = 1.0
"""Without a CALL for so long, a station has been asked everything."""

PATIENCE_S = 60.0
POLL_S = 0.05
"""Coarse, for it takes CPU; the instants come from the stations themselves."""

END_S = 10.0
PER_S = 100
"""Connections opened a second: the gateway admits 200."""

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
SHORT, MEDIUM = 125, 126


@dataclass(frozen=True)
class Member:
    """A station: its id, OCPP's version (``1.6`` or ``2.0.1``), and its certificate where there is TLS."""

    id: str
    version: str
    identity: ClientIdentity | None = None


@dataclass(frozen=True)
class Lowered:
    """What a cut did: monotonic seconds at which the first and the last station had read a lower limit."""

    first: float
    last: float
    profiles: int
    highest_a: float


class Herd:
    """The handle of the process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def connect(self, port: int, members: Sequence[Member]) -> None:
        """Connect, boot, and wait until nobody is asked anything any more."""
        await self._ask("connect", port, list(members))

    async def begin(self, version: str) -> None:
        """Begin a transaction at every station of a version, and wait until nobody is asked anything."""
        await self._ask("begin", version)

    async def report(self, version: str, each: int) -> float:
        """Have each station of a version send ``each`` meter values; seconds from the first to the last answer."""
        elapsed: float = await self._ask("report", version, each)
        return elapsed

    async def allowed(self, amperes: float) -> None:
        """Wait until every station may take more than ``amperes`` in its transaction."""
        await self._ask("allowed", amperes)

    async def lowered(self, since: float, amperes: float) -> Lowered:
        """Wait until every station was told at most ``amperes`` since then."""
        lowered: Lowered = await self._ask("lowered", since, amperes)
        return lowered

    async def _ask(self, *question: Any) -> Any:
        self._connection.send(question)
        answer = await asyncio.to_thread(self._connection.recv)
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def a_herd() -> AsyncIterator[Herd]:
    """A process without stations; it and they end with the block."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Herd(ours)
    finally:
        ours.close()
        await asyncio.to_thread(process.join, END_S)
        process.kill()


def _main(connection: Connection) -> None:
    asyncio.run(_Process(connection).serve())


class _Station(asyncio.Protocol):
    """One WebSocket, client side: whole unfragmented frames of less than 64 KiB."""

    def __init__(self, member: Member, port: int, ended: Callable[[], None]) -> None:
        self.make: Maker = maker(member.id, member.version)
        self.version = member.version
        self.asked_at = monotonic()
        self.limits: list[tuple[float, float]] = []
        """When it was told which limit of its transaction, A."""
        self.up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._member = member
        self._port = port
        self._ended = ended
        self._received = b""
        self._frames: deque[bytes] = deque()
        self._numbers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /{self._member.id} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: ocpp{self.version}\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.up.done():
            self.up.set_exception(ConnectionError(f"{self._member.id}: {exc or 'closed'}"))
        elif self._frames:
            self._frames.clear()
            self._ended()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.up.done():
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._transport.close()
                return
            self._received = rest
            self.up.set_result(None)
        while self._take_frame():
            pass

    def say(self, frames: Sequence[bytes]) -> None:
        """Send these CALLs one after the other."""
        self._frames.extend(frames)
        self._transport.write(self._frames[0])

    def number(self) -> str:
        """A message id of its own."""
        self._numbers += 1
        return f"{self._numbers}"

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def _take_frame(self) -> bool:
        data = self._received
        if len(data) < 2:
            return False
        length, start = data[1], 2
        if length == MEDIUM:
            if len(data) < 4:
                return False
            (length,), start = struct.unpack_from("!H", data, 2), 4
        end = start + length
        if len(data) < end:
            return False
        self._received = data[end:]
        self._frame(data[0] & 15, data[start:end])
        return True

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == PING:
            self._transport.write(masked(payload, PONG))
        elif kind == TEXT and payload.startswith(b"[2"):
            self.asked_at = monotonic()
            _, message_id, action, body = json.loads(payload)
            if action == "SetChargingProfile":
                self._limited(body)
            answer = self.make.answer(action, body)
            self._transport.write(masked(json.dumps([3, message_id, answer]).encode()))
        elif kind == TEXT:
            self._answered(payload)

    def _limited(self, body: Mapping[str, Any]) -> None:
        profile = body.get("csChargingProfiles") or body["chargingProfile"]
        if profile["chargingProfilePurpose"] == "TxProfile":
            schedule = profile["chargingSchedule"]
            schedule = schedule[0] if isinstance(schedule, list) else schedule
            self.limits.append((self.asked_at, float(schedule["chargingSchedulePeriod"][0]["limit"])))

    def _answered(self, payload: bytes) -> None:
        if not payload.startswith(b"[3"):
            raise RuntimeError(f"{self._member.id} was told {payload[:200]!r}")
        self.make.told(payload)
        self._frames.popleft()
        if self._frames:
            self._transport.write(self._frames[0])
        else:
            self._ended()


class _Process:
    """Takes questions and answers them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stations: list[_Station] = []
        self._left = 0
        self._done = asyncio.Event()
        self._answers: Mapping[str, Callable[..., Any]] = {
            "connect": self._connect,
            "begin": self._begin,
            "report": self._report,
            "allowed": self._allowed,
            "lowered": self._lowered,
        }

    async def serve(self) -> None:
        while True:
            try:
                question, *arguments = await asyncio.to_thread(self._connection.recv)
            except EOFError:
                break
            try:
                async with asyncio.timeout(PATIENCE_S):
                    answer = await self._answers[question](*arguments)
            except (TimeoutError, OSError) as problem:
                answer = problem
            self._connection.send(answer)
        for station in self._stations:
            station.close()

    async def _connect(self, port: int, members: Sequence[Member]) -> None:
        loop = asyncio.get_running_loop()
        new = []
        for member in members:
            context: ssl.SSLContext | None = None if member.identity is None else client_context(member.identity)

            def make(member: Member = member) -> _Station:
                return _Station(member, port, self._one_ended)

            _, station = await loop.create_connection(make, "127.0.0.1", port, ssl=context)
            await station.up
            await asyncio.sleep(1 / PER_S)
            new.append(station)
        self._stations += new
        await self._say({s: [masked(call(s.number(), "BootNotification", boot(s.version)))] for s in new})
        await self._quiet(new)

    async def _begin(self, version: str) -> None:
        chosen = [s for s in self._stations if s.version == version]
        await self._say({s: [masked(call(s.number(), *s.make.start()))] for s in chosen})
        await self._quiet(chosen)

    async def _report(self, version: str, each: int) -> float:
        chosen = [s for s in self._stations if s.version == version]
        frames = {s: [masked(call(s.number(), *s.make.values())) for _ in range(each)] for s in chosen}
        start = monotonic()
        await self._say(frames)
        return monotonic() - start

    async def _allowed(self, amperes: float) -> None:
        while not all(s.limits and s.limits[-1][1] > amperes for s in self._stations):
            await asyncio.sleep(POLL_S)

    async def _lowered(self, since: float, amperes: float) -> Lowered:
        def told(station: _Station) -> float | None:
            return next((at for at, limit in station.limits if at >= since and limit <= amperes), None)

        while not all(told(s) for s in self._stations):
            await asyncio.sleep(POLL_S)
        times = [at for s in self._stations if (at := told(s)) is not None]
        profiles = sum(at >= since for s in self._stations for at, _ in s.limits)
        return Lowered(min(times), max(times), profiles, max(s.limits[-1][1] for s in self._stations))

    async def _say(self, frames: Mapping[_Station, Sequence[bytes]]) -> None:
        self._left = len(frames)
        self._done.clear()
        for station, own in frames.items():
            station.say(own)
        await self._done.wait()

    async def _quiet(self, stations: Sequence[_Station]) -> None:
        while max(s.asked_at for s in stations) > monotonic() - QUIET_S:
            await asyncio.sleep(QUIET_S / 10)

    def _one_ended(self) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()


def masked(payload: bytes, kind: int = TEXT) -> bytes:
    """A whole frame as a client writes it (RFC 6455 §5.2)."""
    mask = os.urandom(4)
    size = len(payload)
    head = bytes([0x80 | kind, 0x80 | size]) if size <= SHORT else struct.pack("!BBH", 0x80 | kind, 0x80 | MEDIUM, size)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return head + mask + (int.from_bytes(payload) ^ key).to_bytes(size)
