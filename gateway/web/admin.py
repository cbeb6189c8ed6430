"""The admin listener's routes: what the site is doing, for operators; readings, from meters.

Who is asking is what TLS proved. Every route declares an action, and ``rights.decide`` answers
for it before the route runs.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from typing import Any, Protocol, cast

from fastapi import Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from gateway.domain.errors import (
    ActionRefused,
    ConfigError,
    DomainError,
    GatewayError,
    LocalError,
    MalformedMessage,
    NotAuthorised,
    PeerUnreachable,
    StoreError,
    UnknownEnvelope,
    UnknownNode,
)
from gateway.domain.events import OperatorActed, OperatorAction
from gateway.domain.evidence import Actor, Json
from gateway.domain.ids import NodeId, PeerId, SiteId
from gateway.domain.measurement import Measurement
from gateway.kit.asgi import BodyTooLarge, parse_json, peer_from, read_body
from gateway.ports.adapter import ASGIApp
from gateway.ports.gate import Inbound, Receipt, Verdict
from gateway.ports.grid import PeerOperator
from gateway.web import metrics
from gateway.web.measurements import read_measurements
from gateway.web.operate import read_action, read_place, read_wish
from gateway.web.rights import Action, Principal, decide, principal_of

ACTION = "x-gridgate-action"
"""Key of a route's action in its OpenAPI operation."""

MAX_ACTION_BYTES = 4 * 1024
"""A reason with its quotes and escapes."""

MAX_WISH_BYTES = 128 * 1024
"""A request for capacity with all its blocks."""

_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

_STATUS: Sequence[tuple[type[GatewayError], HTTPStatus]] = (
    (BodyTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (MalformedMessage, HTTPStatus.BAD_REQUEST),
    (NotAuthorised, HTTPStatus.FORBIDDEN),
    (UnknownNode, HTTPStatus.NOT_FOUND),
    (UnknownEnvelope, HTTPStatus.NOT_FOUND),
    (ActionRefused, HTTPStatus.CONFLICT),
    (ConfigError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (PeerUnreachable, HTTPStatus.BAD_REQUEST),
    (DomainError, HTTPStatus.BAD_REQUEST),
)
"""First match wins; what is not here is ours: 500."""

DEFAULT_MINUTES, MAX_MINUTES = 30, 1_440
"""Of a look ahead at a node's capacity: what is granted now reaches so far; envelopes are told a day ahead."""


class View(Protocol):
    """What the admin listener may see and do. All calls on the event loop's thread."""

    @property
    def site(self) -> SiteId: ...

    @property
    def meters(self) -> Mapping[str, NodeId]:
        """Which node's meter a certificate's URI names."""
        ...

    @property
    def now(self) -> Callable[[], datetime]:
        """The site's clock."""
        ...

    def status(self) -> dict[str, Json]:
        """The site as a whole."""
        ...

    def tree(self) -> dict[str, Json]: ...

    def capacity(self, node: NodeId, minutes: int) -> dict[str, Json]:
        """What a node can carry, and what of it is committed, free and taken away.

        Raises:
            UnknownNode: no such node.
        """
        ...

    def envelopes(self) -> list[Json]: ...

    def stations(self) -> dict[str, Json]:
        """Configured, approved and unknown stations."""
        ...

    def explain(self, evse: NodeId) -> dict[str, Json]:
        """Why an EVSE has what it has.

        Raises:
            UnknownNode: no such EVSE.
        """
        ...

    def ready(self) -> dict[str, Json]:
        """``ready``: whether durable state can be written."""
        ...

    async def measure(self, samples: Sequence[Measurement]) -> None:
        """Take measured values; returns when they are stored.

        Raises:
            StoreError: not stored; do not acknowledge.
        """
        ...

    async def operate(self, event: OperatorActed, inbound: Inbound) -> Receipt:
        """Do what an operator wants; returns when it is stored.

        Raises:
            UnknownEnvelope, UnknownNode, ActionRefused: it means nothing here and now.
            StoreError: not stored, not done.
        """
        ...

    async def reload(self, event: OperatorActed, inbound: Inbound) -> tuple[Receipt, Sequence[tuple[str, str]]]:
        """Read the configuration again; also what was added, removed or changed.

        Raises:
            ConfigError: it is refused, and nothing changes.
            StoreError: not stored.
        """
        ...

    async def approve_station(self, event: OperatorActed, inbound: Inbound, evse: NodeId, credential: str) -> Receipt:
        """Let a station that knocked in, for the one configured at ``evse``; returns when it is stored.

        Raises:
            ActionRefused: nobody such knocked, or the place is not free.
            StoreError: not stored, not done.
        """
        ...

    async def revoke_station(self, event: OperatorActed, inbound: Inbound) -> Receipt:
        """Take an approval back; returns when it is stored.

        Raises:
            ActionRefused: there is none.
            StoreError: not stored, not done.
        """
        ...

    async def start_with_peer(
        self, event: OperatorActed, inbound: Inbound, start: Callable[[PeerOperator], Awaitable[str]]
    ) -> tuple[Receipt, str]:
        """Start something with a grid party; also the id of the call that is owed now.

        Raises:
            ActionRefused: it means nothing in the present relation.
            StoreError: not stored, nothing is sent.
        """
        ...


def admin_app(view: View) -> ASGIApp:
    """The application of the admin listener."""
    return cast(ASGIApp, build(view))


def build(view: View) -> FastAPI:
    """The same as :func:`admin_app`, for whoever looks at its routes.

    Raises:
        LocalError: a route without an action.
    """
    app = FastAPI(title="gridgate admin", docs_url=None, redoc_url=None, openapi_url=None)
    _add_health(app, view)
    _add_site(app, view)
    _add_measurements(app, view)
    _add_actions(app, view)
    _add_station_actions(app, view)
    _add_peer_actions(app, view)
    app.add_exception_handler(GatewayError, _answer_ours)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_bug)
    require_actions(app.routes)
    return app


def require_actions(routes: Sequence[BaseRoute]) -> None:
    """Insist that every route declares what it does.

    Raises:
        LocalError: names the first one that does not.
    """
    for route in routes:
        extra = route.openapi_extra or {} if isinstance(route, APIRoute) else {}
        if extra.get(ACTION) not in set(Action):
            raise LocalError(f"route {getattr(route, 'path', route)!r} declares no action")


# --- routes ---------------------------------------------------------------------------------

_Handler = Callable[..., Any]


def _route(app: FastAPI, view: View, action: Action, path: str, method: str = "GET") -> Callable[[_Handler], _Handler]:
    """Register a handler under an action that is decided before it runs."""

    async def allowed(request: Request) -> None:
        # The router has matched by now, so an unknown path is 404 for everybody.
        if not decide(_principal(request, view), action):
            raise _refusal(action)

    return app.api_route(
        path, methods=[method], response_class=Response, dependencies=[Depends(allowed)], openapi_extra={ACTION: action}
    )


def _add_health(app: FastAPI, view: View) -> None:
    @_route(app, view, Action.READ_HEALTH, "/health/live")
    async def live() -> Response:
        return _json(HTTPStatus.OK, {"live": True})

    @_route(app, view, Action.READ_HEALTH, "/health/ready")
    async def ready() -> Response:
        document = view.ready()
        return _json(HTTPStatus.OK if document.get("ready") is True else HTTPStatus.SERVICE_UNAVAILABLE, document)

    @_route(app, view, Action.READ_METRICS, "/metrics")
    async def prometheus() -> Response:
        text = metrics.render(view.status(), ready=view.ready().get("ready") is True)
        return Response(text.encode(), headers={**_HEADERS, "content-type": metrics.CONTENT_TYPE})

    @_route(app, view, Action.READ_API, "/openapi.json")
    async def api() -> Response:
        return _json(HTTPStatus.OK, app.openapi())


def _add_site(app: FastAPI, view: View) -> None:
    @_route(app, view, Action.READ_SITE, "/v1/sites/{site}")
    async def status(site: str) -> Response:
        _check_site(view, site)
        return _json(HTTPStatus.OK, view.status())

    @_route(app, view, Action.READ_SITE, "/v1/sites/{site}/tree")
    async def tree(site: str) -> Response:
        _check_site(view, site)
        return _json(HTTPStatus.OK, view.tree())

    @_route(app, view, Action.READ_SITE, "/v1/sites/{site}/nodes/{path:path}/capacity")
    async def capacity(site: str, path: str, request: Request) -> Response:
        _check_site(view, site)
        minutes = _minutes(request.query_params.get("minutes", str(DEFAULT_MINUTES)))
        return _json(HTTPStatus.OK, view.capacity(NodeId(path), minutes))

    @_route(app, view, Action.READ_SITE, "/v1/sites/{site}/envelopes")
    async def envelopes(site: str) -> Response:
        _check_site(view, site)
        return _json(HTTPStatus.OK, {"site": view.site, "envelopes": view.envelopes()})

    @_route(app, view, Action.READ_SITE, "/v1/sites/{site}/stations")
    async def stations(site: str) -> Response:
        _check_site(view, site)
        return _json(HTTPStatus.OK, view.stations())

    @_route(app, view, Action.READ_SITE, "/v1/sites/{site}/evses/{path:path}/explain")
    async def explain(site: str, path: str) -> Response:
        _check_site(view, site)
        return _json(HTTPStatus.OK, view.explain(NodeId(path)))


def _minutes(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 5 and 0 < int(text) <= MAX_MINUTES:
        return int(text)
    raise MalformedMessage(f"minutes: a whole number from 1 to {MAX_MINUTES}", code="admin.minutes")


def _add_measurements(app: FastAPI, view: View) -> None:
    @_route(app, view, Action.WRITE_MEASUREMENTS, "/v1/sites/{site}/measurements", "POST")
    async def measurements(site: str, request: Request) -> Response:
        _check_site(view, site)
        _check_json(request)
        principal = _principal(request, view)
        document = parse_json(await read_body(request.scope, request.receive))
        source = principal.name if principal is not None else ""
        samples = read_measurements(document, received_at=view.now(), source=source)
        for sample in samples:
            if not decide(principal, Action.WRITE_MEASUREMENTS, sample.node):
                raise NotAuthorised(
                    f'this certificate is not that of the meter at "{sample.node[:200]}"',
                    hint="a meter reports its own node; see meters in site.yaml",
                )
        await view.measure(samples)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _add_actions(app: FastAPI, view: View) -> None:
    async def act(site: str, action: OperatorAction, subject: str, request: Request) -> Response:
        event, inbound, _ = await _action(view, site, action, subject, request)
        return _done(event, inbound, await view.operate(event, inbound))

    @_route(app, view, Action.OPERATE, "/v1/sites/{site}/envelopes/{envelope}/withdraw", "POST")
    async def withdraw(site: str, envelope: str, request: Request) -> Response:
        return await act(site, OperatorAction.WITHDRAW, envelope, request)

    @_route(app, view, Action.OPERATE, "/v1/sites/{site}/envelopes/{envelope}/release", "POST")
    async def release(site: str, envelope: str, request: Request) -> Response:
        return await act(site, OperatorAction.RELEASE, envelope, request)

    @_route(app, view, Action.OPERATE, "/v1/sites/{site}/reload", "POST")
    async def reload(site: str, request: Request) -> Response:
        event, inbound, _ = await _action(view, site, OperatorAction.RELOAD, site, request)
        receipt, changed = await view.reload(event, inbound)
        return _done(event, inbound, receipt, changes=[" ".join(change) for change in changed])

    @_route(app, view, Action.OPERATE, "/v1/sites/{site}/evses/{path:path}/trust", "POST")
    async def trust(site: str, path: str, request: Request) -> Response:
        return await act(site, OperatorAction.TRUST, path, request)


def _add_station_actions(app: FastAPI, view: View) -> None:
    @_route(app, view, Action.OPERATE, "/v1/sites/{site}/stations/{station}/approve", "POST")
    async def approve(site: str, station: str, request: Request) -> Response:
        more = frozenset({"evse", "credential"})
        event, inbound, document = await _action(view, site, OperatorAction.APPROVE, station, request, more)
        evse, credential = read_place(document)
        return _done(event, inbound, await view.approve_station(event, inbound, evse, credential))

    @_route(app, view, Action.OPERATE, "/v1/sites/{site}/stations/{station}/revoke", "POST")
    async def revoke(site: str, station: str, request: Request) -> Response:
        event, inbound, _ = await _action(view, site, OperatorAction.REVOKE, station, request)
        return _done(event, inbound, await view.revoke_station(event, inbound))


def _add_peer_actions(app: FastAPI, view: View) -> None:
    @_route(app, view, Action.OPERATE, "/v1/sites/{site}/peers/{peer}/adjust", "POST")
    async def adjust(site: str, peer: str, request: Request) -> Response:
        more = frozenset({"group", "type", "blocks"})
        event, inbound, document = await _action(view, site, OperatorAction.ADJUST, peer, request, more)
        group, type_, blocks = read_wish(document)
        actor = event.message.actor
        receipt, call = await view.start_with_peer(
            event, inbound, lambda operator: operator.adjust(PeerId(peer), group, type_, blocks, actor=actor)
        )
        return _done(event, inbound, receipt, call)

    @_route(app, view, Action.OPERATE, "/v1/sites/{site}/peers/{peer}/{verb}", "POST")
    async def start(site: str, peer: str, verb: str, request: Request) -> Response:
        found = _PEER_VERBS.get(verb)
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f'nothing is called "{verb[:100]}"')
        action, begin = found
        event, inbound, _ = await _action(view, site, action, peer, request)
        actor = event.message.actor
        receipt, call = await view.start_with_peer(
            event, inbound, lambda operator: begin(operator, PeerId(peer), actor)
        )
        return _done(event, inbound, receipt, call)


_PEER_VERBS: Mapping[str, tuple[OperatorAction, Callable[[PeerOperator, PeerId, Actor], Awaitable[str]]]] = {
    "register": (OperatorAction.REGISTER, lambda o, peer, actor: o.register(peer, actor=actor)),
    "renew": (OperatorAction.RENEW, lambda o, peer, actor: o.renew(peer, actor=actor)),
    "end": (OperatorAction.END, lambda o, peer, actor: o.end(peer, actor=actor)),
    "handshake": (OperatorAction.HANDSHAKE, lambda o, peer, actor: o.handshake(peer, actor=actor)),
}
"""What is started with a grid party, by the last part of the path."""


async def _action(
    view: View, site: str, action: OperatorAction, subject: str, request: Request, more: frozenset[str] = frozenset()
) -> tuple[OperatorActed, Inbound, Mapping[str, Any]]:
    """An operator's message, read and not yet done."""
    _check_site(view, site)
    _check_json(request)
    body = await read_body(request.scope, request.receive, limit=MAX_WISH_BYTES if more else MAX_ACTION_BYTES)
    principal = _principal(request, view)
    actor = peer_from(request.scope).actor("operator", principal.name if principal is not None else "")
    request_id = request.headers.get("x-request-id", "")
    document = parse_json(body)
    event, inbound = read_action(
        action, subject, document, body=body, request_id=request_id, actor=actor, now=view.now(), more=more
    )
    return event, inbound, document


def _done(event: OperatorActed, inbound: Inbound, receipt: Receipt, call: str = "", **more: Json) -> Response:
    if receipt.verdict is Verdict.CONFLICT:
        text = "this X-Request-ID came before, with another body"
        return _error(HTTPStatus.CONFLICT, "admin.request-id-reused", text, "draw a new one")
    document = {
        "action": event.action.value,
        "subject": event.subject,
        "request_id": inbound.message_id,
        "duplicate": receipt.verdict is Verdict.DUPLICATE,
        "evidence": list(receipt.evidence),
        **more,
    }
    return _json(HTTPStatus.OK, {**document, "call": call} if call else document)


def _check_json(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is sent as application/json")


def _principal(request: Request, view: View) -> Principal | None:
    return principal_of(peer_from(request.scope), view.meters)


def _check_site(view: View, site: str) -> None:
    if site != view.site:
        raise HTTPException(HTTPStatus.NOT_FOUND, f'no site "{site[:100]}" here')


def _refusal(action: Action) -> NotAuthorised:
    return NotAuthorised(
        f"this certificate may not do {action.value}",
        hint="operators read with urn:gridgate:operator:…, meters post with urn:gridgate:meter:… (meters in site.yaml)",
    )


# --- answers --------------------------------------------------------------------------------


def _json(status: HTTPStatus, document: Any) -> Response:
    body = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status_code=status, media_type="application/json", headers=_HEADERS)


def _error(status: HTTPStatus, code: str, message: str, hint: str = "") -> Response:
    answer = _json(status, {"code": code, "message": message, "hint": hint})
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        answer.headers["connection"] = "close"
    return answer


async def _answer_ours(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, GatewayError)  # noqa: S101 - registered for this class alone
    status = next((s for kind, s in _STATUS if isinstance(problem, kind)), None)
    if status is None:
        return await _answer_bug(_request, problem)
    if isinstance(problem, ConfigError):
        said = {"code": problem.code, "message": str(problem), "hint": problem.hint}
        return _json(status, {**said, "problems": [asdict(mistake) for mistake in problem.problems]})
    return _error(status, problem.code, str(problem), problem.hint)


async def _answer_http(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)  # noqa: S101 - registered for this class alone
    status = HTTPStatus(problem.status_code)
    code = {404: "admin.not-found", 405: "admin.method", 415: "admin.media-type"}.get(problem.status_code, "admin.http")
    return _error(status, code, str(problem.detail))


async def _answer_bug(_request: Request, _problem: Exception) -> Response:
    """What went wrong is for the log; its text may name what the peer must not know."""
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "admin.internal", "the gateway failed; see its log")
