"""One HTTP/1.1 connection under guard: who is there, and what it may cost. No sockets of its own.

uvicorn's protocol does the parsing; :class:`GuardedHttp` bounds bytes, fields and times around it,
because no anonymous byte is free.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.domain.errors import TlsFailure
from gateway.kit.peer import EXTENSION, PeerInfo
from gateway.kit.tls import peer_of

FIRST_BYTE_S = 5.0
"""A connection that says nothing this long is closed: honest clients connect in order to send."""

HEAD_S = 5.0
"""From a request's first byte to the end of its headers; longer is a slow-header attack."""

BODY_S = 30.0
"""From the end of the headers to the end of the body; 1 MiB at 300 kbit/s fits."""

KEEP_ALIVE_S = 30.0
"""Idle time between two requests; covers a heartbeat interval, frees forgotten connections."""

STALLED_WRITE_S = 30.0
"""A client that leaves the answer lying this long is cut off; it holds buffers and a task."""

LIFETIME_S = 3600.0
"""A connection older than this ends with its next response, so that certificates are proved anew."""

HANDSHAKE_S = 5.0
"""A TLS handshake takes two round trips; asyncio alone would wait 60 s for it."""

MAX_HEAD_BYTES = 16 * 1024
"""Request line and headers together; the largest honest ones carry a token and a few ids."""

MAX_HEADERS = 100
"""Header fields of one request."""

MAX_PIPELINED = 8
"""Requests queued on one connection behind the one being answered; HTTP clients rarely queue any."""

LINGER_S = 1.0
"""How long a refused client is still listened to, so that it can read the refusal."""

MAX_LINGER_BYTES = 256 * 1024
"""What a refused client may still send meanwhile, unread, before it is cut off."""

_SLICE = 4 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The guard's times in real seconds; tests shorten them, nobody else should."""

    first_byte_s: float = FIRST_BYTE_S
    head_s: float = HEAD_S
    body_s: float = BODY_S
    keep_alive_s: float = KEEP_ALIVE_S
    stalled_write_s: float = STALLED_WRITE_S
    lifetime_s: float = LIFETIME_S
    handshake_s: float = HANDSHAKE_S
    linger_s: float = LINGER_S


class GuardedHttp(HttpToolsProtocol):
    """One connection: uvicorn's HTTP/1.1, the verified peer in every scope, and bounds.

    A request is in its *head* until the headers are complete, then in its *body* until the
    message is. Bytes are parsed in slices, and those without progress are counted: the parser
    itself would collect an endless header or trailer in memory.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        peer: PeerInfo,
        times: Timeouts,
        *,
        opened: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        """``peer`` is what is known before the handshake; both calls come at most once."""
        super().__init__(config, state, {})
        self.access_log = False
        self.was_made = False
        self.peer = peer
        self._times = times
        self._opened = opened
        self._closed = closed
        self._in_head = True
        self._stalled_bytes = 0
        self._field_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._began = self.loop.time()
        self._is_refused = False
        self._lingered_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who is there; a peer that cannot be described is cut off."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio gives a stream to a stream protocol
        super().connection_made(transport)
        self.was_made = True
        self._opened()
        try:
            self.peer = peer_of(transport.get_extra_info("ssl_object"), self.peer.listener, self.peer.remote_addr)
        except TlsFailure as problem:
            _log.warning("%s", problem)
            self._is_refused = True
            transport.abort()
            return
        self._arm(self._times.first_byte_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so to whoever let it in."""
        self._disarm()
        self._disarm_write()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._closed()

    def data_received(self, data: bytes) -> None:
        """Parse, slice by slice, until the data or the patience ends."""
        if self._is_refused:
            self._linger(len(data))
            return
        if self._in_head and (self._deadline is None or self._stalled_bytes == 0):
            # The first byte of a request; its head is due from now on.
            self._arm(self._times.head_s)
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            part = bytes(view[start : start + _SLICE])
            self._stalled_bytes += len(part)
            super().data_received(part)
            if self.transport.is_closing() or self._is_refused:
                return
            if self._stalled_bytes > MAX_HEAD_BYTES:
                self._refuse(431 if self._in_head else 400)
                return

    def on_message_begin(self) -> None:
        """A request begins: its scope carries the peer."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.peer}  # type: ignore[dict-item]  # ASGI types foresee mappings only
        self._in_head = True
        self._field_bytes = 0
        if self._deadline is None:
            self._arm(self._times.head_s)

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        if self._has_room(len(url)):
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count one field; a trailer (RFC 9110 §6.5) is no header and is left out."""
        if not self._in_head or not self._has_room(len(name) + len(value) + 4):
            return
        if len(self.headers) >= MAX_HEADERS:
            self._refuse(431)
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        if self._is_refused:
            return
        self._in_head = False
        self._stalled_bytes = 0
        self._arm(self._times.body_s)
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(400)
            return
        super().on_headers_complete()
        is_old = self.loop.time() - self._began > self._times.lifetime_s
        if is_old or self.parser.should_upgrade():
            # Nothing here speaks another protocol, so what follows an upgrade would be garbage.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Progress."""
        if self._is_refused:
            return
        self._stalled_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; the next one may begin."""
        if self._is_refused:
            return
        self._disarm()
        self._in_head = True
        self._stalled_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A last answer has to be taken in time too, or closing would wait for ever."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm(self._times.stalled_write_s)

    def pause_writing(self) -> None:
        """The client does not read; bear that for a while."""
        super().pause_writing()
        self._disarm_write()
        self._write_deadline = self.loop.call_later(self._times.stalled_write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self._disarm_write()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, even one whose client never read the answer."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _has_room(self, count: int) -> bool:
        """Count ``count`` more bytes of a head; refuse it when they are too many."""
        self._field_bytes += count
        if self._field_bytes > MAX_HEAD_BYTES and not self._is_refused:
            self._refuse(431)
        return not self._is_refused

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._give_up)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _disarm_write(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _give_up(self) -> None:
        # Not closed but cut off: a client that stalls would stall the end of TLS as well.
        self._deadline = None
        self.transport.abort()

    def _refuse(self, status: int) -> None:
        """Answer ``status`` unless another answer is under way, then read no more."""
        self._is_refused = True
        self._arm(self._times.linger_s)
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        fields = b"".join(name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers)
        self.transport.write(STATUS_LINE[status] + fields + b"content-length: 0\r\nconnection: close\r\n\r\n")

    def _linger(self, count: int) -> None:
        # Closing with unread data would reset the connection and destroy the answer on its way.
        self._lingered_bytes += count
        if self._lingered_bytes > MAX_LINGER_BYTES:
            self.transport.abort()
