"""The station's end of OCPP-J: a WebSocket client with one outstanding CALL. No station logic."""

from __future__ import annotations

import asyncio
import base64
import ssl
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from adapters.ocpp.wire import Version, frames, request_decoder
from gateway.domain.errors import PeerTimeout, PeerUnreachable, ProtocolViolation

ANSWER_S = 30.0
"""Real seconds until the other side's silence counts as a failure."""

FIRST_RETRY_S, LAST_RETRY_S = 0.2, 5.0
"""Back-off between attempts to connect, doubling, in real seconds."""

Handler = Callable[[str, msgspec.Struct], "bytes | None"]


class Rpc:
    """A connection that comes back by itself until :meth:`stop`.

    ``on_call`` answers a CALL with a payload, or None to stay silent. ``frames`` counts
    ``sent:<action>``, ``received:<action>`` and ``answered:<action>``.
    """

    def __init__(
        self,
        url: str,
        station: str,
        version: Version,
        *,
        context: ssl.SSLContext | None,
        password: str | None,
        on_call: Handler,
        on_connected: Callable[[], None],
    ) -> None:
        self.frames: Counter[str] = Counter()
        self.connections = 0
        self.away = False
        self._url = f"{url.rstrip('/')}/ocpp/{quote(station, safe='')}"
        self._station = station
        self._version = version
        self._context = context
        self._password = password
        self._on_call = on_call
        self._on_connected = on_connected
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._waiting: dict[str, tuple[asyncio.Future[bytes], Callable[[bytes], None] | None]] = {}
        self._wake = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the line is up."""
        return self._socket is not None

    def start(self) -> None:
        """Connect, and keep connecting."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"station-{self._station}")

    async def stop(self) -> None:
        """Hang up for good."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def hang_up(self) -> None:
        """Close the line and stay away until :meth:`come_back`."""
        self.away = True
        if self._socket is not None:
            await self._socket.close()

    def come_back(self) -> None:
        """Connect again."""
        self.away = False
        self._wake.set()

    async def call(self, action: str, payload: bytes, then: Callable[[bytes], None] | None = None) -> bytes:
        """The answer's payload. ``then`` sees it before any later message is taken.

        Raises:
            PeerUnreachable: no line, or it broke before the answer.
            PeerTimeout: no answer.
            ProtocolViolation: a CALLERROR.
        """
        async with self._one_at_a_time:
            socket = self._socket
            if socket is None:
                raise PeerUnreachable(f"{self._station} is not connected")
            message_id = str(uuid.uuid4())
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting[message_id] = (future, then)
            self.frames[f"sent:{action}"] += 1
            try:
                await socket.send(frames.call(message_id, action, payload))
                async with asyncio.timeout(ANSWER_S):
                    answer = await future
            except ConnectionClosed as problem:
                raise PeerUnreachable(f"{self._station}: the line broke") from problem
            except TimeoutError as problem:
                raise PeerTimeout(f"{self._station}: no answer to {action}") from problem
            finally:
                self._waiting.pop(message_id, None)
            self.frames[f"answered:{action}"] += 1
            return answer

    async def _run(self) -> None:
        delay = FIRST_RETRY_S
        while True:
            if self.away:
                self._wake.clear()
                await self._wake.wait()
            try:
                async with connect(
                    self._url,
                    subprotocols=[Subprotocol(self._version)],
                    ssl=self._context,
                    additional_headers=self._headers(),
                    compression=None,
                    max_size=frames.MAX_FRAME_BYTES,
                    user_agent_header=None,
                ) as socket:
                    delay = FIRST_RETRY_S
                    await self._serve(socket)
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                pass
            if not self.away:
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY_S)

    def _headers(self) -> dict[str, str]:
        if self._password is None:
            return {}
        credentials = base64.b64encode(f"{self._station}:{self._password}".encode()).decode()
        return {"Authorization": f"Basic {credentials}"}

    async def _serve(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.connections += 1
        self._on_connected()
        try:
            async for text in socket:
                await self._take(socket, text)
        finally:
            self._socket = None
            for future, _ in self._waiting.values():
                if not future.done():
                    future.set_exception(PeerUnreachable(f"{self._station}: the line broke"))

    async def _take(self, socket: ClientConnection, text: str | bytes) -> None:
        match frames.parse(text.encode() if isinstance(text, str) else text, self._version):
            case frames.Call(raw_id=raw_id, action=action, payload=payload):
                self.frames[f"received:{action}"] += 1
                answer = self._answer(raw_id, action, payload)
                if answer is not None:
                    await socket.send(answer)
            case frames.CallResult(id=message_id, payload=payload):
                self._resolve(message_id, payload)
            case frames.CallFault(id=message_id, code=code, text=words):
                self._fail(message_id, ProtocolViolation(f"{code}: {words}", code=code))
            case frames.BadFrame(reason=reason):
                self.frames[f"bad:{reason}"] += 1

    def _answer(self, raw_id: bytes, action: str, payload: bytes) -> str | None:
        try:
            message = request_decoder(self._version, action).decode(payload)
        except KeyError:
            return frames.fault(raw_id, frames.ErrorCode.NOT_IMPLEMENTED, "unknown", self._version)
        except msgspec.DecodeError:
            return frames.fault(raw_id, frames.ErrorCode.FORMAT, "unreadable", self._version)
        answer = self._on_call(action, message)
        return None if answer is None else frames.result(raw_id, answer)

    def _resolve(self, message_id: str, payload: bytes) -> None:
        future, then = self._waiting.get(message_id, (None, None))
        if future is not None and not future.done():
            if then is not None:
                then(payload)
            future.set_result(payload)

    def _fail(self, message_id: str, problem: Exception) -> None:
        future, _ = self._waiting.get(message_id, (None, None))
        if future is not None and not future.done():
            future.set_exception(problem)
