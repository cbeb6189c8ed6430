"""The grid party's end of HTTP/1.1: one kept connection, as little work as possible per request."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass

PATH = "/oscp/fp/2.0/update_group_capacity_forecast"
HEADERS_END = b"\r\n\r\n"

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Poster:
    """Posts forecasts over one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    token: str

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext, token: str) -> Poster:
        """Connect to a listener on loopback."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        return cls(reader, writer, token)

    async def post(self, request_id: str, body: bytes) -> None:
        """Send a forecast and wait for its 204.

        Raises:
            RuntimeError: any other answer.
        """
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Token {self.token}\r\n"
            f"Content-Type: application/json\r\nX-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode("ascii") + body)
        answer = await self.reader.readuntil(HEADERS_END)
        length = _LENGTH.search(answer)
        text = await self.reader.readexactly(int(length[1])) if length else b""
        if not answer.startswith(b"HTTP/1.1 204 "):
            raise RuntimeError(f"{answer.splitlines()[0].decode()}: {text.decode(errors='replace')}")

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        await self.writer.wait_closed()
