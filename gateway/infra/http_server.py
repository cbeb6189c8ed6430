"""HTTP listeners: ASGI applications behind our own sockets, caps and trust. No routes.

The accept loop is ours, because it knows a connection's address before its handshake and so can
refuse one that would be too many. Signals, lifespan and access logs are the caller's business.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from gateway.domain.errors import PeerUnreachable
from gateway.infra.http_guard import GuardedHttp, Timeouts
from gateway.kit.peer import PeerInfo
from gateway.kit.tls import RotatingContext, check_bind, server_context
from gateway.ports.adapter import ASGIApp, ListenerSettings, Trust

TLS_SHUTDOWN_S = 3.0
"""How long a peer may take to answer the end of its TLS session."""

MAX_CONNECTIONS = 1024
"""Connections of one listener, handshakes included; well below a usual limit of open files."""

MAX_CONNECTIONS_PER_ADDRESS = 128
"""Of one IPv4 address or one IPv6 /64: a party's machines may share one address."""

MAX_HANDSHAKES = 64
"""Unfinished handshakes of one listener; each costs about 1.6 ms of CPU when it completes."""

BACKLOG = 256
"""Connections that the kernel may hold for us between two turns of the accept loop."""

ACCEPT_PAUSE_S = 1.0
"""Pause of the accept loop when the process has no file descriptor left; asyncio waits as long."""


_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ConnectionCap:
    """Counts open connections in all and per address. May be shared by several listeners."""

    total: int = MAX_CONNECTIONS
    per_address: int = MAX_CONNECTIONS_PER_ADDRESS
    _open: Counter[str] = field(default_factory=Counter)

    def take(self, address: str) -> Place | None:
        """Count one more from ``address``; None when a cap is reached."""
        group = _address_group(address)
        if self._open.total() >= self.total or self._open[group] >= self.per_address:
            return None
        self._open[group] += 1
        return Place(self, group)

    def give_back(self, group: str) -> None:
        """One connection of ``group`` has ended; :class:`Place` calls it once."""
        self._open[group] -= 1
        if self._open[group] <= 0:
            del self._open[group]


@dataclass(slots=True)
class Place:
    """One connection's right to exist."""

    _cap: ConnectionCap
    _group: str
    _is_held: bool = True

    def release(self) -> None:
        """Give it back; a second time means nothing."""
        if self._is_held:
            self._is_held = False
            self._cap.give_back(self._group)


class HttpListener:
    """One listener: one socket, one trust domain, one application.

    Args:
        max_connections: cap of this listener, unless ``cap`` is given.
        cap: a cap shared with other listeners.
        timeouts: the guard's times.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        app: ASGIApp,
        *,
        max_connections: int = MAX_CONNECTIONS,
        cap: ConnectionCap | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.settings = settings
        self.port = 0
        self.refused_handshakes = 0
        self.timeouts = timeouts or Timeouts()
        self._cap = cap or ConnectionCap(max_connections)
        self._config = uvicorn_config(app, self.timeouts)
        self._state = ServerState()
        self._context: RotatingContext | None = None
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._date_timer: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def url(self) -> str:
        """Base URL as bound, without a trailing slash."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        scheme = "http" if self.settings.trust is Trust.INSECURE else "https"
        return f"{scheme}://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open, unfinished handshakes not counted."""
        return len(self._state.connections)

    async def start(self) -> int:
        """Bind and serve; the port bound.

        Raises:
            ConfigError: certificate, key or trust file failed a check, or plain TCP off loopback.
            PeerUnreachable: the address cannot be bound.
        """
        check_bind(self.settings)
        if self.settings.trust is not Trust.INSECURE:
            self._context = server_context(self.settings)
        self._socket = await _bound(self.settings)
        self.port = int(self._socket.getsockname()[1])
        self._refresh_date()
        self._accepting = asyncio.get_running_loop().create_task(
            self._accept(self._socket), name=f"accept {self.settings.name}"
        )
        return self.port

    def reload(self) -> None:
        """Read certificate, key and anchors again; connections in progress go on.

        Raises:
            ConfigError: a check failed; the old ones stay in use.
        """
        if self._context is not None:
            self._context.reload()

    def drop(self, unwanted: Callable[[PeerInfo], bool]) -> int:
        """Close the connections of peers that are no longer welcome; how many there were.

        An answer being given is still sent: a revoked peer may learn of it.
        """
        guarded = [found for found in self._state.connections if isinstance(found, GuardedHttp)]
        chosen = [found for found in guarded if unwanted(found.peer)]
        for connection in chosen:
            connection.shutdown()
        return len(chosen)

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let running requests end for ``grace_s``, then cut off the rest."""
        if self._accepting is None or self._socket is None:
            return
        self._accepting.cancel()
        # A handshake cancelled before its first step would leave its socket to nobody.
        await asyncio.sleep(0)
        for handshake in self._handshakes:
            handshake.cancel()
        await asyncio.gather(self._accepting, *self._handshakes, return_exceptions=True)
        self._socket.close()
        self._accepting = self._socket = None
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._quiet_within(grace_s)
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._quiet_within(TLS_SHUTDOWN_S)
        if self._date_timer is not None:
            self._date_timer.cancel()

    async def _quiet_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        except TimeoutError:
            _log.debug("%s: %d connection(s) outlast the grace", self.settings.name, self.connections)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except ConnectionError:
                # The client left while it was in the kernel's queue.
                continue
            except OSError as problem:
                # Most often no file descriptor is left, and trying at once would only spin.
                _log.warning("%s: cannot accept: %s", self.settings.name, problem.strerror)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            self._admit(accepted, str(address[0]))

    def _admit(self, accepted: socket.socket, address: str) -> None:
        place = None if len(self._handshakes) >= MAX_HANDSHAKES else self._cap.take(address)
        if place is None:
            accepted.close()
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(self._handshake(accepted, address, place))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _handshake(self, accepted: socket.socket, address: str, place: Place) -> None:
        """Bring one connection up; from then on it keeps its place until it is lost."""
        protocol = GuardedHttp(
            self._config,
            self._state,
            PeerInfo(self.settings.name, address),
            self.timeouts,
            opened=self._quiet.clear,
            closed=lambda: self._closed(place),
        )
        tls: dict[str, Any] = {}
        if self._context is not None:
            tls = {
                "ssl": self._context,
                "ssl_handshake_timeout": self.timeouts.handshake_s,
                "ssl_shutdown_timeout": TLS_SHUTDOWN_S,
            }
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted, **tls)
        except OSError as problem:
            # Refused certificates, time-outs and resets are all of this family.
            self.refused_handshakes += 1
            _log.info("%s: handshake with %s failed: %s", self.settings.name, address, problem)
        finally:
            if not protocol.was_made:
                place.release()

    def _closed(self, place: Place) -> None:
        place.release()
        if not self._state.connections:
            self._quiet.set()

    def _refresh_date(self) -> None:
        """Keep the ``Date`` header right (RFC 9110 §6.6.1); it has whole seconds."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self._date_timer = asyncio.get_running_loop().call_later(1.0, self._refresh_date)


def uvicorn_config(app: ASGIApp, timeouts: Timeouts) -> Config:
    """uvicorn without anything of its own: no lifespan, logging, proxy headers or version."""
    config = Config(
        app,
        http=GuardedHttp,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=timeouts.keep_alive_s,  # type: ignore[arg-type]  # handed to call_later, which takes floats
    )
    config.load()
    return config


async def _bound(settings: ListenerSettings) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = found[0]
        listening = socket.socket(family, kind, proto)
    except OSError as problem:
        raise _unbound(settings, problem) from problem
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as problem:
        listening.close()
        raise _unbound(settings, problem) from problem
    return listening


def _unbound(settings: ListenerSettings, problem: OSError) -> PeerUnreachable:
    return PeerUnreachable(
        f"listener {settings.name} cannot bind {settings.host}:{settings.port}: {problem.strerror}",
        code="transport.cannot-bind",
        hint="another process may hold the port; choose a free one or 0",
    )


def _address_group(address: str) -> str:
    """What counts as one origin: an IPv4 address, or the /64 an IPv6 host can choose within."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
