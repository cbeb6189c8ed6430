"""Routes of the Flexibility Provider, and the adapter while it runs.

One shape for every request: who is it, read the body, decide, store, answer. Every refusal is
recorded, and turned into ``{"message": ...}`` here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from adapters.oscp import wire
from adapters.oscp.caller import Caller, CallerFactory
from adapters.oscp.carrier import Carrier
from adapters.oscp.core import METHODS, SPELLINGS, Core
from adapters.oscp.keeper import Keeper
from adapters.oscp.link import BASE_PATH, Credential, Link, reference
from adapters.oscp.link import Request as OscpRequest
from adapters.oscp.oauth import TokenSource
from adapters.oscp.operator import TOKEN_BYTES, Operator
from adapters.oscp.relations import Relations
from adapters.oscp.segments import TooLarge, TooMany
from adapters.oscp.session import Relation, State
from adapters.oscp.settings import check_token_urls, key_file, links_of, token_out
from adapters.oscp.vault import Vault, open_vault
from gateway.domain.errors import (
    DomainError,
    GatewayError,
    MalformedMessage,
    NotAuthorised,
    PeerError,
    ProtocolViolation,
    StoreError,
    TransportError,
    UnknownGroup,
)
from gateway.domain.events import MessageRefused
from gateway.domain.evidence import sha256_hex
from gateway.domain.ids import PeerId
from gateway.kit.asgi import BodyTooLarge, peer_from, read_body
from gateway.kit.http_client import HttpCaller
from gateway.kit.peer import PeerInfo
from gateway.ports.adapter import AdapterContext, ASGIApp, ClientIdentity, Trust
from gateway.ports.gate import Verdict
from gateway.ports.grid import PeerSettings

log = logging.getLogger("gridgate.oscp")

REFUSALS_PER_MINUTE = 60
"""Recorded per listener for callers without a valid token: strangers must not fill the log."""

RETRY_AFTER_S = 5
"""Told with 503: the store is either back within seconds or needs an operator."""

STATUS_BY_CODE: Mapping[str, int] = {
    "oscp.unauthenticated": 401,
    "oscp.no-such-endpoint": 404,
    "oscp.method": 405,
    BodyTooLarge.code: 413,
    TooLarge.code: 413,
    TooMany.code: 429,
    "oscp.media-type": 415,
    "oscp.no-common-version": 501,
    "oscp.not-supported": 501,
    "oscp.starting": 503,
    "peer.url": 400,
}
"""Finer than the class of an error."""

STATUS_BY_CLASS: Mapping[type[GatewayError], int] = {
    MalformedMessage: 400,
    NotAuthorised: 403,
    ProtocolViolation: 403,
    PeerError: 400,
    UnknownGroup: 404,
    DomainError: 400,
    StoreError: 503,
    TransportError: 503,
    GatewayError: 500,
}
"""The nearest class above an error decides."""


def status_of(problem: GatewayError) -> int:
    """The HTTP status that a peer gets for an error."""
    if problem.code in STATUS_BY_CODE:
        return STATUS_BY_CODE[problem.code]
    return next(STATUS_BY_CLASS[cls] for cls in type(problem).__mro__ if cls in STATUS_BY_CLASS)


class OscpRunning:
    """The opened adapter."""

    actuator = None

    def __init__(self, context: AdapterContext, make_caller: CallerFactory | None = None) -> None:
        self._context = context
        self._links = links_of(context)
        self._callers = {p: (make_caller or self._http_caller)(link.settings) for p, link in self._links.items()}
        check_token_urls(self._links, self._callers)
        self._relations = Relations(context, self._links)
        self._key_file = key_file(context)
        self._carrier: Carrier | None = None
        self._operator: Operator | None = None
        self._beats: list[asyncio.Task[None]] = []
        self._apps = {name: Routes(context, self._relations) for name in self._listeners()}

    @property
    def asgi(self) -> Mapping[str, ASGIApp]:
        """One application per listener that has OSCP peers."""
        return {name: routes.app for name, routes in self._apps.items()}

    @property
    def carrier(self) -> Carrier | None:
        """Delivers facts; there is none before ``start``."""
        return self._carrier

    @property
    def operator(self) -> Operator | None:
        """Starts what is ours to start; there is none before ``start``."""
        return self._operator

    @property
    def ports(self) -> Mapping[str, int]:
        """None of its own: the gateway runs the HTTP listeners."""
        return {}

    async def start(self, urls: Mapping[str, str]) -> None:
        """Find the relations again, serve, and beat.

        Raises:
            ConfigError: the key file cannot be used.
        """
        vault = open_vault(self._key_file) if self._key_file else Vault(secrets.token_bytes(32))
        self._relations.load(_provisioning(vault))
        keeper = Keeper(self._relations, self._context.clock)
        await keeper.serve()
        operator = self._operator = Operator(self._relations, self._context.clock, vault)
        sources = {
            peer: TokenSource(link.credentials, self._callers[peer], self._context.clock)
            for peer, link in self._links.items()
            if link.credentials is not None
        }
        self._carrier = Carrier(self._relations, self._context.clock, vault, self._callers, operator, sources)
        self._carrier.listen_at(self._public(urls))
        core = Core(
            links=self._links,
            trusts={name: listener.trust for name, listener in self._context.listeners.items()},
            new_token=lambda: secrets.token_urlsafe(TOKEN_BYTES),
            seal=vault.seal,
            check_url=lambda peer, url: self._callers[peer].check_url(url),
        )
        for routes in self._apps.values():
            routes.serve(core, keeper)
        carrier = self._carrier
        self._beats = [asyncio.create_task(carrier.beat(link)) for link in self._links.values()]
        self._beats.append(asyncio.create_task(keeper.run()))

    def follow(self, context: AdapterContext) -> None:
        """Take other bindings of the same peers."""
        self._context = context
        for peer, link in self._links.items():
            link.groups = {binding.group: binding for binding in context.groups if binding.peer == peer}

    async def stop(self, grace_s: float) -> None:
        """Stop the heartbeats and close the lines."""
        for beat in self._beats:
            beat.cancel()
        if self._beats:
            await asyncio.wait(self._beats, timeout=grace_s)
        for caller in self._callers.values():
            await caller.aclose()

    def _listeners(self) -> set[str]:
        return {link.settings.listener for link in self._links.values()}

    def _public(self, urls: Mapping[str, str]) -> dict[str, str]:
        listeners = self._context.listeners
        return {name: listeners[name].public_url or urls.get(name, "") for name in self._listeners()}

    def _http_caller(self, peer: PeerSettings) -> Caller:
        return HttpCaller(
            self._context.identities.get(peer.listener, ClientIdentity()),
            url_hosts=peer.url_hosts,
            allow_private=peer.allow_private,
            allow_insecure=self._context.listeners[peer.listener].trust is Trust.INSECURE,
        )


class Routes:
    """The HTTP side of one listener."""

    def __init__(self, context: AdapterContext, relations: Relations) -> None:
        self._gate = context.gate
        self._clock = context.clock
        self._relations = relations
        self._core: Core | None = None
        self._keeper: Keeper | None = None
        self._strangers = _Allowance(REFUSALS_PER_MINUTE)
        self.app = self._make_app()

    def serve(self, core: Core, keeper: Keeper) -> None:
        """From now on requests are answered; before, all get 503."""
        self._core = core
        self._keeper = keeper

    def _make_app(self) -> FastAPI:
        app = FastAPI(title="OSCP 2.0 Flexibility Provider", docs_url=None, redoc_url=None, openapi_url=None)
        app.router.redirect_slashes = False
        for endpoint, methods in METHODS.items():
            spellings = (endpoint, *(other for other, meant in SPELLINGS.items() if meant == endpoint))
            for spelling in spellings:
                path = f"{BASE_PATH}/{spelling}"
                app.add_route(path, self._route(endpoint), methods=list(methods))
        app.add_exception_handler(HTTPException, self._on_http_exception)
        app.add_exception_handler(Exception, self._on_bug)
        return app

    def _route(self, endpoint: str) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            return await self._answer(endpoint, request)

        return handle

    async def _answer(self, endpoint: str, request: Request) -> Response:
        seen = _Seen(endpoint, request, self._clock.now())
        try:
            verdict = await self._take(seen)
            if verdict is Verdict.CONFLICT:
                raise MalformedMessage("X-Request-ID: request id reused with another body", code="oscp.conflict")
        except GatewayError as problem:
            return self._refuse(seen, problem)
        return Response(status_code=204)

    async def _take(self, seen: _Seen) -> Verdict:
        core, keeper = self._core, self._keeper
        if core is None or keeper is None:
            raise StoreError("starting; try again", code="oscp.starting")
        headers = _headers(seen.request)
        seen.link, credential = core.authenticate(headers, seen.info)
        _check_media(seen.request.method, headers)
        seen.body = await read_body(seen.request.scope, seen.request.receive)
        request = seen.to_oscp(headers)
        link = seen.link
        if credential in (Credential.PENDING, Credential.OFFERED):
            credential = await self._relations.promote(link, credential)
        link.let_time_pass(seen.at)
        if seen.endpoint == "update_group_capacity_forecast" and not _SEGMENTED & headers.keys() and not link.asks:
            # Changes nothing of the adapter's, so forecasts need not wait for each other's commit.
            return await self._relations.take(link, core.decide(link, credential, request), request)
        async with self._relations.lock(link):
            # What is overdue is over, also where the timer has not come to it.
            await keeper.serve_link(link)
            return await self._relations.take(link, core.decide(link, credential, request), request)

    def _refuse(self, seen: _Seen, problem: GatewayError) -> Response:
        status = status_of(problem)
        text = str(problem) if status < 500 or status == 501 else _UNAVAILABLE
        if status >= 500 and status != 501:
            log.error("oscp: %s refused with %d: %s: %s", seen.endpoint, status, problem.code, problem)
        if not isinstance(problem, StoreError):
            self._record(seen, problem, text)
        return _error(status, text)

    def _record(self, seen: _Seen, problem: GatewayError, text: str) -> None:
        """Refusals of known peers are all recorded, strangers' within an allowance."""
        if seen.link is None and not self._strangers.take(seen.at):
            return
        left_out = self._strangers.left_out() if seen.link is None else 0
        more = f" ({left_out} more not recorded)" if left_out else ""
        message = reference(seen.to_oscp(dict(seen.request.headers)), self._principal(seen), seen.claimed_id())
        self._gate.note((MessageRefused(message, problem.code, f"{status_of(problem)} {text}{more}"),))

    def _principal(self, seen: _Seen) -> PeerId:
        """By certificate where the token failed; nobody's name is taken from a message."""
        link = seen.link or (self._core.by_certificate(seen.info) if self._core else None)
        return link.id if link else PeerId("")

    async def _on_http_exception(self, request: Request, problem: Exception) -> Response:
        status = problem.status_code if isinstance(problem, HTTPException) else 400
        endpoint = request.url.path.rpartition("/")[2][:64]
        code = {404: "oscp.no-such-endpoint", 405: "oscp.method"}.get(status, "oscp.http")
        text = {404: "no such endpoint", 405: "method not allowed here"}.get(status, "not acceptable")
        seen = _Seen(endpoint, request, self._clock.now())
        response = self._refuse(seen, MalformedMessage(text, code=code))
        if isinstance(problem, HTTPException) and problem.headers:
            response.headers.update(problem.headers)
        return response

    async def _on_bug(self, _: Request, problem: Exception) -> Response:
        log.error("oscp: a bug of ours: %r", problem)
        return _error(500, _UNAVAILABLE)


class _Seen:
    """A request while it is judged: what is known of it so far."""

    def __init__(self, endpoint: str, request: Request, at: datetime) -> None:
        self.endpoint = endpoint
        self.request = request
        self.at = at
        self.info: PeerInfo = peer_from(request.scope)
        self.body = b""
        self.link: Link | None = None

    def to_oscp(self, headers: Mapping[str, str]) -> OscpRequest:
        return OscpRequest(self.request.method, self.endpoint, headers, self.body, self.info, self.at)

    def claimed_id(self) -> str:
        """The request id as sent, cut to what evidence takes."""
        text = self.request.headers.get("x-request-id", "")[:255]
        return text if text.isascii() and text.isprintable() else ""


class _Allowance:
    """So many per minute; what goes beyond is counted."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._taken: Counter[str] = Counter()
        self._since: datetime | None = None

    def take(self, now: datetime) -> bool:
        if self._since is None or now - self._since >= timedelta(minutes=1):
            self._since = now
            self._taken["now"] = 0
        self._taken["now"] += 1
        if self._taken["now"] > self._per_minute:
            self._taken["left out"] += 1
            return False
        return True

    def left_out(self) -> int:
        """How many were refused a record since this was last asked."""
        return self._taken.pop("left out", 0)


_UNAVAILABLE = "temporarily unavailable"
_SEGMENTED = frozenset({"x-segment-index", "x-segment-count"})
_ONCE = ("authorization", "x-request-id", "x-correlation-id", "content-type", *sorted(_SEGMENTED))


def _provisioning(vault: Vault) -> Callable[[Link, Relation], Relation]:
    """Puts into a relation what stands in the configuration alone, for peers that do not register."""

    def provisioned(link: Link, stored: Relation) -> Relation:
        if link.dialect.onboarding != "provisioned":
            return stored
        return replace(
            stored,
            state=State.REGISTERED if stored.state in (State.UNREGISTERED, State.ENDED) else stored.state,
            token_in_sha256=sha256_hex(link.settings.token.encode()),
            token_out_sealed="" if link.credentials else vault.seal(token_out(link.settings), link.record("out")),
            base_url=link.address,
        )

    return provisioned


def _headers(request: Request) -> dict[str, str]:
    for name in _ONCE:
        if len(request.headers.getlist(name)) > 1:
            raise MalformedMessage(f"{name} is given twice")
    return dict(request.headers)


def _check_media(method: str, headers: Mapping[str, str]) -> None:
    if method == "DELETE":
        return
    media, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise MalformedMessage("Content-Type must be application/json in UTF-8", code="oscp.media-type")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise MalformedMessage("Content-Encoding must be identity", code="oscp.media-type")


def _error(status: int, text: str) -> Response:
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Token"
    if status == 413:
        headers["Connection"] = "close"
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return Response(wire.Error(message=text).to_wire(), status, headers, "application/json")
