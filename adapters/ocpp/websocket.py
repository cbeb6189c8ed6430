"""A station's WebSocket without tasks of its own: whole texts go to a callable, pings come from timers.

Opening, closing, and whatever is not a text in one frame are those of ``websockets``. Its reader, its
writer and its keep-alive cost a queue and a task each, and with its parser of single frames more per
message than all the rest of an answer; so texts in one frame, which is what stations send and get, are
read and written here (RFC 6455 §5.2).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from adapters.ocpp.wire.frames import MAX_FRAME_BYTES

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its compiled part
    from websockets.utils import apply_mask

PING_EVERY_S, PONG_WITHIN_S = 55.0, 20.0
"""Below the minute after which middle boxes forget a silent connection."""

MAX_UNWRITTEN = 64
"""Texts that a station leaves unread before it is cut off: answers it owes itself, and one CALL."""

MAX_EARLY = 16
"""Texts that wait for somebody to take them before the socket is left unread."""

WHOLE_TEXT = 0x81
"""First byte of a text in one frame."""

MASKED = 0x80
SHORT, MEDIUM = 125, 126
"""Longest length in the second byte, and its value for one in the two bytes after it."""

MAX_FRAME_ON_WIRE = MAX_FRAME_BYTES + 14
"""With the longest head and the mask."""

Take = Callable[[list[bytes]], None]


class StationSocket(ServerConnection):
    """The server's end, made by ``websockets`` for each connection (``create_connection``)."""

    def __init__(self, protocol: ServerProtocol, server: Server, **settings: Any) -> None:
        super().__init__(protocol, server, **settings)
        self._take: Take | None = None
        self._texts: list[bytes] = []
        self._rest = b""
        self._at_frame = False
        self._parts: list[bytes] = []
        self._is_text = False
        self._unread = False
        self._unwritten: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None

    # --- for the line -------------------------------------------------------------------------

    def serve(self, take: Take) -> None:
        """Hand what comes, and what came already, to ``take``: a list of whole messages each time."""
        self._take = take
        # Their headers are as much memory as all that is kept of a station.
        self.request = self.response = None
        self._ping_later()
        self._hand_over()

    def write(self, text: str) -> None:
        """Send a text; a station that reads nothing is cut off rather than written for without end."""
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return
        if self._unwritten is not None:
            self._unwritten += 1
            if self._unwritten > MAX_UNWRITTEN:
                self.transport.abort()
                return
        self.transport.write(_framed(text.encode()))

    def leave_unread(self) -> None:
        """Read nothing until :meth:`read_on`."""
        if not self._unread and not self.transport.is_closing():
            self._unread = True
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Read again."""
        if self._unread and not self.transport.is_closing():
            self.transport.resume_reading()
        self._unread = False

    # --- what asyncio and websockets call -----------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        data, self._rest = (self._rest + data if self._rest else data), b""
        if self.protocol.state is State.OPEN and self._at_frame:
            self._rest = self._frames(data)
        else:
            if self.protocol.state is State.CONNECTING:
                # Whoever sends frames before the answer to its request leaves us inside of one.
                self._at_frame = data.endswith(b"\r\n\r\n")
            super().data_received(data)
        if self._texts:
            self._hand_over()
        if self.protocol.state is State.CLOSING:
            self._end_soon()

    def process_event(self, event: Event) -> None:
        """See ``ServerConnection``."""
        if isinstance(event, Request) or not isinstance(event, Frame):
            super().process_event(event)
            return
        match event.opcode:
            case Opcode.TEXT | Opcode.BINARY | Opcode.CONT:
                self._data(event)
            case Opcode.PONG:
                self.acknowledge_pings(bytes(event.data))
                self._ping_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        for timer in (self._timer, self._end):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().pause_writing()
        self._unwritten = 0

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().resume_writing()
        self._unwritten = None

    # --- parts --------------------------------------------------------------------------------

    def _frames(self, data: bytes) -> bytes:
        """Take whole frames; what is left is the beginning of the next one."""
        start = 0
        while (end := _end_of_frame(data, start)) is not None and end <= min(len(data), start + MAX_FRAME_ON_WIRE):
            if data[start] == WHOLE_TEXT and not self._parts and data[start + 1] & MASKED:
                self._text(_unmasked(data, start, end))
            else:
                self._leave_to_websockets(data[start:end])
            start = end
            if self.protocol.state is not State.OPEN:
                return b""
        if end is not None and end - start > MAX_FRAME_ON_WIRE:
            # Above the bound: refused by its header.
            self._leave_to_websockets(data[start:])
            return b""
        return data[start:]

    def _leave_to_websockets(self, data: bytes) -> None:
        # It may be the connection's end: what came before is answered before.
        self._hand_over()
        super().data_received(data)

    def _text(self, data: bytes) -> None:
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as problem:
                self._fail(CloseCode.INVALID_DATA, f"{problem.reason} at position {problem.start}")
                return
        self._texts.append(data)

    def _data(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        data = bytes(frame.data)
        if not frame.fin:
            self._parts.append(data)
            return
        if self._parts:
            data = b"".join((*self._parts, data))
            self._parts = []
        if self._is_text:
            self._text(data)
        else:
            self._texts.append(data)

    def _hand_over(self) -> None:
        if self._take is None:
            if len(self._texts) > MAX_EARLY:
                self.leave_unread()
            return
        texts, self._texts = self._texts, []
        if texts:
            self._take(texts)

    def _ping_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(PING_EVERY_S, self._ping)

    def _ping(self) -> None:
        if self.protocol.state is State.OPEN and not self.transport.is_closing():
            self.protocol.send_ping(b"")
            self.send_data()
            self._timer = self.loop.call_later(PONG_WITHIN_S, self._silent)

    def _silent(self) -> None:
        self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Fail the connection (RFC 6455 §7.1.7); what came before is answered before."""
        self._hand_over()
        self.protocol.fail(code, reason)
        self.send_data()
        self._end_soon()

    def _end_soon(self) -> None:
        """The peer may take its time to hang up, but not for ever."""
        if self._end is None and self.close_timeout is not None:
            self._end = self.loop.call_later(self.close_timeout, self.transport.abort)


def _end_of_frame(data: bytes, start: int) -> int | None:
    """Where the frame that begins at ``start`` ends; None while its length is not there."""
    if len(data) - start < 2:
        return None
    length, head = data[start + 1] & 0x7F, 2
    if length >= MEDIUM:
        head = 4 if length == MEDIUM else 10
        if len(data) - start < head:
            return None
        length = int.from_bytes(data[start + 2 : start + head])
    return start + head + (4 if data[start + 1] & MASKED else 0) + length


def _unmasked(data: bytes, start: int, end: int) -> bytes:
    """The payload of a masked frame."""
    length = data[start + 1] & 0x7F
    head = start + (2 if length <= SHORT else 4 if length == MEDIUM else 10)
    return apply_mask(data[head + 4 : end], data[head : head + 4])


def _framed(payload: bytes) -> bytes:
    """A text in one frame, as a server writes it."""
    size = len(payload)
    if size <= SHORT:
        return bytes((WHOLE_TEXT, size)) + payload
    return (
        struct.pack("!BBH", WHOLE_TEXT, MEDIUM, size) + payload
        if size < 65_536
        else (struct.pack("!BBQ", WHOLE_TEXT, MEDIUM + 1, size) + payload)
    )
