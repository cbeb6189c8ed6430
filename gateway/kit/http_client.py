"""Calling out over HTTP: the one place that uses httpx. Knows no protocol.

Where we call is half chosen by the peer (OSCP hands us its URL), so every call is checked: the
host must be one that the operator allowed, and the address it resolves to must be of an allowed
kind. The connection then goes to the address that was checked, not to a second look-up of the
name, while TLS still verifies the name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx

from gateway.domain.errors import LocalError, MalformedMessage, NotAuthorised, PeerTimeout, PeerUnreachable, TlsFailure
from gateway.kit.tls import client_context, is_loopback, tls_failure
from gateway.ports.adapter import ClientIdentity

CONNECT_TIMEOUT_S = 5.0
"""For TCP and TLS together, each address: two round trips, even over a mobile link."""

TOTAL_TIMEOUT_S = 15.0
"""For a whole call; below a heartbeat interval, so that one stuck call cannot hide a lost peer."""

MAX_RESPONSE_BYTES = 256 * 1024
"""Answers of grid parties are empty or an error text."""

MAX_URL_LENGTH = 2048
"""Longer ones are nobody's endpoint."""

MAX_ADDRESSES = 4
"""Addresses of one name that are tried in turn within the total time."""

MAX_IDLE_CONNECTIONS = 2
"""Kept per host for the next call; calls to one peer go out in order."""

BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 60.0
"""Bounds of a pause between attempts: no burst on a peer that returns, and back within a minute."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. ``headers`` have lower-case names; redirects are answers like any other."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def resolve_all(host: str, port: int) -> list[str]:
    """Every address of ``host``, as the system resolves it, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpCaller:
    """Calls the hosts it was allowed to call, and nobody else.

    Args:
        identity: our certificate and whom we trust.
        url_hosts: ``host`` or ``host:port``; without a port the scheme's own one is meant.
        allow_private: private and loopback addresses count as well (a DSO inside a VPN).
        allow_insecure: plain HTTP is allowed, to loopback only.
    """

    def __init__(
        self,
        identity: ClientIdentity,
        *,
        url_hosts: Iterable[str],
        allow_private: bool = False,
        allow_insecure: bool = False,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
        resolve: Resolve = resolve_all,
    ) -> None:
        self._identity = identity
        self._hosts = frozenset(host.lower() for host in url_hosts)
        self._allow_private = allow_private
        self._allow_insecure = allow_insecure
        self._connect_timeout_s = connect_timeout_s
        self._total_timeout_s = total_timeout_s
        self._resolve = resolve
        self._context: ssl.SSLContext | None = None
        # A pool per host: connections of a shared pool are told apart by address alone, and one
        # that was verified for a name must not serve another name at the same address.
        self._clients: dict[str, httpx.AsyncClient] = {}

    def check_url(self, url: str) -> None:
        """Whether ``url`` may be called, before any look-up.

        Raises:
            NotAuthorised: scheme, host, port or form is not allowed; says which.
        """
        self._target(url)

    async def post(self, url: str, *, headers: Mapping[str, str], content: bytes) -> Response:
        """Send ``content`` to ``url`` and return whatever answer comes.

        Raises:
            NotAuthorised: this URL, or an address that its host resolves to, may not be called.
            PeerUnreachable: no connection, or it broke before the answer.
            PeerTimeout: no answer within the total time.
            TlsFailure: one side refused the other's certificate.
            MalformedMessage: an answer that is larger than allowed or no HTTP.
        """
        return await self.request("POST", url, headers=headers, content=content)

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> Response:
        """As :meth:`post`, with any method."""
        target = self._target(url)
        try:
            async with asyncio.timeout(self._total_timeout_s):
                addresses = await self._addresses(target)
                return await self._first_reachable(method, target, addresses, headers, content)
        except TimeoutError as problem:
            raise PeerTimeout(f"{target.netloc} did not answer within {self._total_timeout_s:g} s") from problem

    async def reload(self) -> None:
        """Read our certificate and anchors again; the next call uses them.

        Raises:
            ConfigError: a check failed; the old ones stay in use.
        """
        self._context = client_context(self._identity)
        await self.aclose()

    async def aclose(self) -> None:
        """Close what is open."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    def _target(self, url: str) -> SplitResult:
        try:
            target = urlsplit(url)
            port = target.port
            parsed = httpx.URL(url)
        except (ValueError, httpx.InvalidURL) as problem:
            raise NotAuthorised("the URL cannot be read", code="peer.url") from problem
        refusal = self._refusal(url, target, port)
        if not refusal and parsed.host != target.hostname:
            # Two parsers that disagree about the host are how allow-lists are walked around.
            refusal = "the URL does not name one host"
        if refusal:
            raise NotAuthorised(refusal, code="peer.url", hint="name the host under the peer's url_hosts")
        return target

    def _refusal(self, url: str, target: SplitResult, port: int | None) -> str:
        host = target.hostname or ""
        if len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
            return "the URL is too long or has characters that no URL has"
        if not host or target.username is not None or target.fragment:
            return "the URL must be scheme, host and path, without user or fragment"
        if target.scheme not in ("https", "http"):
            return f"scheme {target.scheme} is not allowed"
        if target.scheme == "http" and not (self._allow_insecure and is_loopback(host)):
            return f"plain HTTP to {host} is not allowed"
        shown = f"[{host}]" if ":" in host else host
        known = {f"{shown}:{port or _default_port(target)}"}
        if port in (None, _default_port(target)):
            known.add(shown)
        return "" if known & self._hosts else f"{shown}:{port or _default_port(target)} is not among the allowed hosts"

    async def _addresses(self, target: SplitResult) -> list[str]:
        """The checked addresses; one that is not allowed refuses the name as a whole."""
        host, port = target.hostname or "", target.port or _default_port(target)
        try:
            found = await self._resolve(host, port)
        except OSError as problem:
            raise PeerUnreachable(f"{host} cannot be resolved: {problem.strerror}") from problem
        for address in found:
            if not self._is_allowed(ipaddress.ip_address(address.partition("%")[0]), target.scheme):
                raise NotAuthorised(f"{host} resolves to {address}, which may not be called", code="peer.address")
        if not found:
            raise PeerUnreachable(f"{host} has no address")
        return found[:MAX_ADDRESSES]

    def _is_allowed(self, address: IpAddress, scheme: str) -> bool:
        inner = _embedded(address)
        if scheme == "http" and not inner.is_loopback:
            return False
        # Cloud metadata lives at a link-local address: never, whatever the operator allows.
        if inner.is_link_local or inner.is_multicast or inner.is_unspecified:
            return False
        return inner.is_global or self._allow_private

    async def _first_reachable(
        self, method: str, target: SplitResult, addresses: list[str], headers: Mapping[str, str], content: bytes
    ) -> Response:
        last: PeerUnreachable | None = None
        for address in addresses:
            try:
                return await self._call(method, target, address, headers, content)
            except _NotConnected as problem:
                last = problem
        raise PeerUnreachable(str(last)) from last

    async def _call(
        self, method: str, target: SplitResult, address: str, headers: Mapping[str, str], content: bytes
    ) -> Response:
        watch = _Watch()
        client = self._client(target)
        request = client.build_request(
            method,
            httpx.URL(target.geturl()).copy_with(host=address),
            headers={**headers, "host": target.netloc},
            content=content,
            extensions={"sni_hostname": target.hostname, "trace": watch.note, "timeout": self._timeouts()},
        )
        async with _mapped(target, watch):
            answer = await client.send(request, stream=True)
            try:
                return Response(answer.status_code, dict(answer.headers), await _bounded(answer, target))
            finally:
                await answer.aclose()

    def _timeouts(self) -> dict[str, float]:
        return {
            "connect": self._connect_timeout_s,
            "read": self._total_timeout_s,
            "write": self._total_timeout_s,
            "pool": self._total_timeout_s,
        }

    def _client(self, target: SplitResult) -> httpx.AsyncClient:
        key = f"{target.scheme}://{target.netloc.lower()}"
        client = self._clients.get(key)
        if client is None:
            if self._context is None:
                self._context = client_context(self._identity)
            client = self._clients[key] = httpx.AsyncClient(
                verify=self._context,
                trust_env=False,
                follow_redirects=False,
                limits=httpx.Limits(max_keepalive_connections=MAX_IDLE_CONNECTIONS),
                headers={"user-agent": "gridgate", "accept-encoding": "identity"},
            )
        return client


def backoff(attempt: int, rng: random.Random) -> float:
    """Seconds to wait after failed attempt number ``attempt`` (from 0): full jitter, 1 to 60 s."""
    ceiling = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(attempt + 1, 16))
    return rng.uniform(BACKOFF_MIN_S, ceiling)


class _NotConnected(PeerUnreachable):
    """Nothing was sent yet, so another address may be tried."""


class _Watch:
    """Whether this call opened its own TLS connection, and whether an answer began."""

    def __init__(self) -> None:
        self.is_fresh_tls = False
        self.has_answer = False

    async def note(self, event: str, _: Mapping[str, Any]) -> None:
        if event == "connection.start_tls.complete":
            self.is_fresh_tls = True
        elif event.endswith("receive_response_headers.complete"):
            self.has_answer = True


@asynccontextmanager
async def _mapped(target: SplitResult, watch: _Watch) -> AsyncIterator[None]:
    """Say in our words what httpx reports."""
    peer = target.netloc
    try:
        yield
    except httpx.TimeoutException as problem:
        if isinstance(problem, httpx.ConnectTimeout):
            raise _NotConnected(f"{peer} did not take the connection in time") from problem
        raise PeerTimeout(f"{peer} did not answer in time") from problem
    except httpx.TransportError as problem:
        tls = _tls_cause(problem)
        if tls is not None:
            raise tls_failure(tls, peer) from problem
        if isinstance(problem, httpx.ConnectError):
            raise _NotConnected(f"no connection to {peer}: {problem}") from problem
        if isinstance(problem, httpx.LocalProtocolError):
            raise LocalError(f"our own request to {peer} is no HTTP: {problem}") from problem
        if watch.is_fresh_tls and not watch.has_answer and _is_silent_end(problem):
            # In TLS 1.3 a client is done before its certificate was judged (RFC 8446 §2), so a
            # refusal can look like a connection that ends before the first byte.
            raise TlsFailure(
                f"{peer} ended a new TLS connection without an answer",
                code="transport.tls-refused",
                hint="most often the other side does not trust our client certificate",
            ) from problem
        if isinstance(problem, httpx.RemoteProtocolError) and not _is_silent_end(problem):
            raise MalformedMessage(f"{peer} broke off its answer, or it is no HTTP") from problem
        raise PeerUnreachable(f"the connection to {peer} broke: {problem}") from problem


def _is_silent_end(problem: httpx.TransportError) -> bool:
    """Whether the connection ended before any byte of an answer."""
    if isinstance(problem, httpx.RemoteProtocolError):
        return str(problem).startswith("Server disconnected")
    return isinstance(problem, httpx.ReadError | httpx.WriteError)


def _tls_cause(problem: BaseException) -> ssl.SSLError | None:
    seen: BaseException | None = problem
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


async def _bounded(answer: httpx.Response, target: SplitResult) -> bytes:
    body = bytearray()
    # Raw, so that no content coding can make much of little.
    async for part in answer.aiter_raw():
        body += part
        if len(body) > MAX_RESPONSE_BYTES:
            raise MalformedMessage(f"{target.netloc} answers with more than {MAX_RESPONSE_BYTES} bytes")
    return bytes(body)


def _default_port(target: SplitResult) -> int:
    return 443 if target.scheme == "https" else 80


def _embedded(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 one stands for, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
