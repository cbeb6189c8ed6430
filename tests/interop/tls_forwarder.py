"""Loopback TLS on one side, TLS or plain TCP on the other, for peers that cannot show a certificate themselves.

::

    async with Forwarder.running(accepts=server_side(party), calls=client_side(party)) as forwarder:
        forwarder.target = 8443         # port on 127.0.0.1
        forwarder.url                   # "https://127.0.0.1:PORT"
        forwarder.callers               # common names of the certificates that callers showed

Bytes go through as they are. Connections, bytes and waiting are bounded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from gateway.ports.adapter import ClientIdentity

HOST = "127.0.0.1"
MAX_CONNECTIONS = 32
MAX_BYTES = 16 << 20
"""Per connection and direction: a peer posts a few kilobytes a minute."""

CONNECT_S = 5.0
IDLE_S = 30.0
CHUNK = 64 << 10


def server_side(identity: ClientIdentity, client_ca: Path | None = None) -> ssl.SSLContext:
    """Show the certificate; with ``client_ca`` callers have to show one, too."""
    assert identity.certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_side(identity: ClientIdentity) -> ssl.SSLContext:
    """Verify the server and show the certificate."""
    assert identity.certificate is not None
    context = ssl.create_default_context(cafile=str(identity.server_ca))
    context.load_cert_chain(identity.certificate, identity.key)
    return context


class Forwarder:
    """One door; see the module. Without a ``target`` callers are hung up on."""

    def __init__(self, calls: ssl.SSLContext | None) -> None:
        self.target: int | None = None
        self.port = 0
        self.callers: list[str] = []
        self._calls = calls
        self._open: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def running(cls, *, accepts: ssl.SSLContext, calls: ssl.SSLContext | None) -> AsyncIterator[Forwarder]:
        """Serve on a free port until the block ends. ``calls`` None: plain TCP to the target."""
        forwarder = cls(calls)
        server = await asyncio.start_server(forwarder._carry, HOST, 0, ssl=accepts)
        forwarder.port = server.sockets[0].getsockname()[1]
        try:
            yield forwarder
        finally:
            server.close()
            for task in forwarder._open:
                task.cancel()
            await asyncio.gather(*forwarder._open, return_exceptions=True)

    @property
    def host(self) -> str:
        """Host and port, as configurations name it."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"https://{self.host}"

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if self.target is not None and len(self._open) <= MAX_CONNECTIONS:
                self.callers = [*self.callers, _common_name(writer)][-MAX_CONNECTIONS:]
                await self._to_target(reader, writer, self.target)
        except (OSError, TimeoutError):
            pass  # like a broken line: both sides see it end
        finally:
            self._open.discard(task)
            await _hang_up(writer)

    async def _to_target(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        name = None if self._calls is None else HOST
        async with asyncio.timeout(CONNECT_S):
            inner = await asyncio.open_connection(HOST, port, ssl=self._calls, server_hostname=name)
        try:
            pumps = [asyncio.create_task(_pump(reader, inner[1])), asyncio.create_task(_pump(inner[0], writer))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            await _hang_up(inner[1])


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    carried = 0
    while carried < MAX_BYTES:
        async with asyncio.timeout(IDLE_S):
            data = await source.read(CHUNK)
        if not data:
            return
        carried += len(data)
        sink.write(data)
        await sink.drain()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_S):
            await writer.wait_closed()


def _common_name(writer: asyncio.StreamWriter) -> str:
    certificate = writer.get_extra_info("peercert") or {}
    return next((value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "commonName"), "")
