"""Raw HTTP over loopback sockets, for tests that care about bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.infra.http_server import HttpListener
from gateway.kit.peer import EXTENSION, PeerInfo
from gateway.ports.adapter import ASGIApp, ClientIdentity, ListenerSettings, Trust

PATIENCE_S = 10.0
GET = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"
LAB = ListenerSettings("lab", "127.0.0.1", 0, Trust.INSECURE)


class Recorder:
    """An application that remembers whom it met and answers with their address."""

    def __init__(self) -> None:
        self.peers: list[PeerInfo] = []
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.peers.append(scope["extensions"][EXTENSION])
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(
    settings: ListenerSettings, app: ASGIApp | None = None, **options: Any
) -> AsyncIterator[HttpListener]:
    listener = HttpListener(settings, app or Recorder(), **options)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop(1.0)


class Wire:
    """One client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, listener: HttpListener, context: ssl.SSLContext | None = None) -> Wire:
        name = None if context is None else "localhost"
        return cls(*await asyncio.open_connection("127.0.0.1", listener.port, ssl=context, server_hostname=name))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_closed(self) -> bytes:
        """What arrives before the other side ends the connection; a reset is an end."""
        received = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while part := await self.reader.read(65536):
                    received += part
        except (ConnectionError, ssl.SSLError):
            pass
        return received

    async def answer(self) -> bytes:
        """One response with a body of two bytes."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            return head + await self.reader.readexactly(2)

    def close(self) -> None:
        self.writer.close()


def bare_client(identity: ClientIdentity, *, trusting: ClientIdentity | None = None) -> ssl.SSLContext:
    """A client that checks nothing about its own certificate, as an attacker's would not."""
    context = ssl.create_default_context(cafile=(trusting or identity).server_ca)
    if identity.certificate is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


async def is_admitted(listener: HttpListener, context: ssl.SSLContext) -> bool:
    """Whether a request with this client context reaches the application."""
    try:
        wire = await Wire.to(listener, context)
        await wire.send(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    except (ssl.SSLError, ConnectionError):
        return False
    received = await wire.until_closed()
    wire.close()
    return received.startswith(b"HTTP/1.1 200")
