"""Lines between the gateway and the world: OCPP's frames and OSCP's requests, in memory, with faults.

A WebSocket keeps the order; what is lost on it is lost without a word, as behind a bad modem, and a
frame may come late, or twice in a row. Requests may also overtake each other.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosedError

from gateway.domain.errors import PeerTimeout, PeerUnreachable
from gateway.kit.peer import EXTENSION, PeerInfo
from tests.simulation.loop import Process

DETECTED_S = 75.0
"""After so long the gateway's ping has found out that nobody is there."""

CALL_S = 10.0
"""Seconds until a request counts as not answered."""


class Weather(Protocol):
    """What a line asks of the world: whether something goes wrong now, counted if so."""

    @property
    def random(self) -> random.Random: ...
    def strikes(self, what: str) -> bool: ...


class GatewayEnd:
    """What ``adapters.ocpp.line.Line`` needs of a WebSocket."""

    def __init__(self, link: Link) -> None:
        self.close_code: int | None = None
        self.close_reason = ""
        self.protocol = SimpleNamespace(close_sent=None)
        self.transport = SimpleNamespace(abort=link.cut)
        self._link = link
        self._gone = asyncio.Event()
        self._take: Callable[[list[bytes]], None] | None = None
        self._early: list[bytes] = []

    def serve(self, take: Callable[[list[bytes]], None]) -> None:
        self._take = take
        if self._early:
            take(self._early)

    def arrive(self, text: str) -> None:
        if self._gone.is_set():
            return
        if self._take is None:
            self._early.append(text.encode())
        else:
            self._take([text.encode()])

    def write(self, text: str) -> None:
        if not self._gone.is_set():
            self._link.to_station(text)

    def leave_unread(self) -> None:
        """A frame more or less: there is no buffer to fill here."""

    def read_on(self) -> None:
        """See :meth:`leave_unread`."""

    async def wait_closed(self) -> None:
        await self._gone.wait()

    async def close(self, code: int, reason: str) -> None:
        self.close_code, self.close_reason = code, reason
        self._link.cut()
        self.lost()

    async def ping(self) -> asyncio.Future[None]:
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._link.is_cut:
            pong.set_result(None)
        return pong

    def lost(self) -> None:
        self._gone.set()


class StationEnd:
    """What ``adapters.ocpp.peer.rpc.Rpc`` needs of a WebSocket."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._texts: deque[str] = deque()
        self._news = asyncio.Event()
        self._over = False

    async def send(self, text: str) -> None:
        if self._over:
            raise ConnectionClosedError(None, None)
        self._link.to_gateway(text)

    async def close(self) -> None:
        self._link.cut()

    def written_at(self, text: str | bytes) -> float:
        """When the gateway wrote a frame."""
        return self._link.sent_at[str(text)]

    def arrive(self, text: str) -> None:
        self._texts.append(text)
        self._news.set()

    def lost(self) -> None:
        self._over = True
        self._news.set()

    def __aiter__(self) -> StationEnd:
        return self

    async def __anext__(self) -> str:
        while not self._texts:
            if self._over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._texts.popleft()


class Link:
    """One connection of a station."""

    def __init__(self, station: str, process: Process, weather: Weather, on_cut: Callable[[Link], None]) -> None:
        self.station = station
        self.is_cut = False
        self.sent_at: dict[str, float] = {}
        """When frames to the station were written, by their text: what it goes by was sent then."""
        self._process = process
        self._weather = weather
        self._on_cut = on_cut
        self._loop = asyncio.get_running_loop()
        self._world = contextvars.copy_context()
        self._free = {"up": 0.0, "down": 0.0}
        self.station_end = StationEnd(self)
        self.gateway_end = GatewayEnd(self)

    def to_station(self, text: str) -> None:
        """The gateway writes."""
        self.sent_at.setdefault(text, self._loop.time())
        self._carry("down", self.station_end.arrive, text, self._world)

    def to_gateway(self, text: str) -> None:
        """The station writes."""
        self._carry("up", self.gateway_end.arrive, text, self._process.context)

    def cut(self, noticed_s: float | None = None) -> None:
        """The line breaks. The gateway notices after a while; None: soon."""
        if self.is_cut:
            return
        self.is_cut = True
        soon = self._weather.random.uniform(0.0, 0.5)
        self._loop.call_at(self._loop.time() + soon, self.station_end.lost, context=self._world)
        self._process.soon(soon if noticed_s is None else noticed_s, self.gateway_end.lost)
        self._on_cut(self)

    def _carry(self, way: str, arrive: Callable[[str], None], text: str, context: contextvars.Context) -> None:
        if self.is_cut or self._weather.strikes("frame lost"):
            return
        random_, now = self._weather.random, self._loop.time()
        if self._weather.strikes("frame late"):
            self._free[way] = now + random_.uniform(1, 35)
        at = self._free[way] = max(now + random_.uniform(0.01, 0.2), self._free[way] + 0.001)
        copies = 2 if self._weather.strikes("frame doubled") else 1
        for copy in range(copies):
            self._loop.call_at(at + copy * 0.0005, self._deliver, arrive, text, context=context)

    def _deliver(self, arrive: Callable[[str], None], text: str) -> None:
        if not self.is_cut:
            arrive(text)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


async def call_app(app: Any, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """One request to an ASGI application."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "extensions": {EXTENSION: PeerInfo("grid", "127.0.0.1")},
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    text = b"".join(m.get("body", b"") for m in sent)
    return Answer(sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0].get("headers", [])}, text)


class HttpLine:
    """One party's way to call another: ``adapters.oscp.caller.Caller``.

    ``reach`` gives the other side's application and where it runs, None while nobody is there.
    """

    def __init__(self, weather: Weather, reach: Callable[[], tuple[Any, contextvars.Context] | None]) -> None:
        self._weather = weather
        self._reach = reach

    async def aclose(self) -> None:
        """Nothing is open."""

    def check_url(self, url: str) -> None:
        """Every address is the right one here."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> Answer:
        """One attempt.

        Raises:
            PeerUnreachable: nobody is there.
            PeerTimeout: request or answer got lost.
        """
        loop = asyncio.get_running_loop()
        path = "/" + url.partition("://")[2].partition("/")[2]
        answer: asyncio.Future[Answer] = loop.create_future()
        random_ = self._weather.random
        is_lost, loses_answer = self._weather.strikes("request lost"), self._weather.strikes("answer lost")
        delays = [random_.uniform(0.01, 0.2)]
        if self._weather.strikes("request late"):
            delays = [random_.uniform(1, 25)]
        if self._weather.strikes("request doubled"):
            delays.append(delays[0] + random_.uniform(0, 4))
        mine = contextvars.copy_context()
        if not is_lost:
            if self._reach() is None:
                raise PeerUnreachable("connection refused")
            for delay_s in delays:
                arrive = (method, path, headers, content, None if loses_answer else answer, mine)
                loop.call_at(loop.time() + delay_s, self._arrive, *arrive, context=contextvars.Context())
        try:
            async with asyncio.timeout(CALL_S):
                return await answer
        except TimeoutError:
            raise PeerTimeout(f"no answer from {path}") from None

    def _arrive(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes,
        answer: asyncio.Future[Answer] | None,
        home: contextvars.Context,
    ) -> None:
        found = self._reach()
        if found is None:
            return
        app, there = found

        def answered(task: asyncio.Task[Answer]) -> None:
            if answer is not None and not answer.done() and not task.cancelled() and task.exception() is None:
                answer.set_result(task.result())

        task = asyncio.get_running_loop().create_task(call_app(app, method, path, headers, content), context=there)
        task.add_done_callback(answered, context=home)
