"""What each message means: the dispatcher between routes and the site's gate. No I/O, no clock.

A request comes in with its time and the verified peer; a :class:`Decision` comes out that names
everything to be stored before the answer may leave. Nothing changes here until the caller has
stored it and adopts the new relation.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from adapters.oscp import forecasts, session, translate, wire
from adapters.oscp.forecasts import alive_until
from adapters.oscp.link import (
    ACKNOWLEDGE,
    ADAPTER_NAME,
    BASE_PATH,
    CALLBACK_EXPIRY,
    REGISTER_CALLBACK,
    ROW_PREFIX,
    Credential,
    Decision,
    Link,
    Request,
    noted,
    owed,
    reference,
)
from adapters.oscp.segments import Place, read_place
from adapters.oscp.session import Listening, State, Swap, Trigger
from gateway.domain.errors import MalformedMessage, NotAuthorised, ProtocolViolation
from gateway.domain.events import SourceEnded, SourceHeard
from gateway.domain.evidence import MessageRef, sha256_hex
from gateway.domain.ids import PeerId, SourceId, derive
from gateway.kit.peer import PeerInfo
from gateway.ports.adapter import Trust

__all__ = ["ADAPTER_NAME", "BASE_PATH", "METHODS", "ROW_PREFIX", "SPELLINGS", "Core", "Credential", "Link", "Request"]

METHODS: Mapping[str, tuple[str, ...]] = {
    "register": ("POST", "PUT", "DELETE"),
    "handshake": ("POST",),
    "handshake_acknowledge": ("POST",),
    "heartbeat": ("POST",),
    "update_group_capacity_forecast": ("POST",),
}
"""Endpoints of a Flexibility Provider and their methods."""

SEGMENTABLE = frozenset({"update_group_capacity_forecast"})
"""Endpoints whose messages have a list that may come in several parts."""

SPELLINGS: Mapping[str, str] = {"handshake_acknowledgment": "handshake_acknowledge"}
"""Paths that peers use for an endpoint besides its own."""

_VISIBLE_ID = re.compile(r"[\x21-\x7e]{1,255}")
_VISIBLE_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True)
class Core:
    """All peers of the adapter.

    ``new_token`` draws a secret, ``seal(secret, record)`` hides it, ``check_url(peer, url)`` raises
    ``NotAuthorised`` for an address that this peer may not send us to.
    """

    links: Mapping[PeerId, Link]
    trusts: Mapping[str, Trust]
    new_token: Callable[[], str]
    seal: Callable[[str, str], str]
    check_url: Callable[[PeerId, str], None]

    # --- who is it ---------------------------------------------------------------------------

    def by_certificate(self, info: PeerInfo) -> Link | None:
        """The one peer of this listener whose certificate this is; None when not exactly one."""
        found = [
            link
            for link in self._of_listener(info.listener)
            if link.settings.certificate is not None and info.matches(link.settings.certificate)
        ]
        return found[0] if len(found) == 1 else None

    def authenticate(self, headers: Mapping[str, str], info: PeerInfo) -> tuple[Link, Credential]:
        """The peer and the token that it used.

        With mTLS the certificate names the peer and the token must be its own; elsewhere the
        token alone names it. Every valid digest is compared, in constant time each.

        Raises:
            NotAuthorised: 401 for a missing, malformed or unknown token, 403 for a certificate
                that belongs to no peer.
        """
        candidates: Sequence[Link] = self._of_listener(info.listener)
        if self.trusts.get(info.listener, Trust.MTLS) is Trust.MTLS:
            link = self.by_certificate(info)
            if link is None:
                raise NotAuthorised("this certificate belongs to no configured peer", code="oscp.unknown-certificate")
            candidates = (link,)
        schemes = {link.dialect.scheme.lower() for link in candidates} or {"token"}
        presented = sha256_hex(_token(headers, schemes).encode())
        found = [
            (link, credential)
            for link in candidates
            for credential, digest in link.tokens()
            if hmac.compare_digest(digest.encode(), presented.encode())
        ]
        if len(found) != 1:
            raise _unauthenticated("unknown token")
        return found[0]

    def _of_listener(self, listener: str) -> tuple[Link, ...]:
        return tuple(link for link in self.links.values() if link.settings.listener == listener)

    # --- what does it want -------------------------------------------------------------------

    def decide(self, link: Link, credential: Credential, request: Request) -> Decision:
        """What a message of an authenticated peer means.

        Raises:
            PeerError, DomainError: refused; nothing changed.
        """
        _admit(link, credential, request)
        message_id, flags = _message_id(link, request)
        place = _place(request)
        message = reference(request, link.id, message_id)
        match request.method, request.endpoint:
            case "POST", "register":
                return self._register(link, credential, request, message)
            case "PUT", "register":
                return self._update(link, request, message)
            case "DELETE", "register":
                return _end(link, message)
            case _, "handshake":
                return _handshake(link, request, message)
            case _, "handshake_acknowledge":
                return _acknowledge(link, request, message)
            case _, "heartbeat":
                return _heartbeat(link, request, message)
            case _, "update_group_capacity_forecast" if place is not None:
                return forecasts.part(self.links, link, request, message, place)
            case _, "update_group_capacity_forecast":
                return forecasts.whole(self.links, link, request, message, flags)
            case _:
                raise MalformedMessage("no such endpoint", code="oscp.no-such-endpoint")

    def _register(self, link: Link, credential: Credential, request: Request, message: MessageRef) -> Decision:
        body = _decode(wire.Register, link, request)
        base_url = self._chosen(link, body)
        if "x-correlation-id" in request.headers:
            return self._answered(link, credential, request, message, body, base_url)
        token = self.new_token()
        swap = Swap(
            request_id=message.message_id,
            token_sha256=sha256_hex(token.encode()),
            token_sealed=self.seal(token, link.record("in")),
            by_onboarding=credential is Credential.ONBOARDING,
            until=request.received_at + CALLBACK_EXPIRY,
        )
        relation = session.begin_swap(
            link.relation, swap=swap, token_out_sealed=self.seal(body.token, link.record("out")), base_url=base_url
        )
        callback = owed(link, REGISTER_CALLBACK, message, expires_after=CALLBACK_EXPIRY)
        return Decision(message, (noted("oscp.register", message, base_url),), relation, outbox=(callback,))

    def _answered(
        self,
        link: Link,
        credential: Credential,
        request: Request,
        message: MessageRef,
        body: wire.Register,
        base_url: str,
    ) -> Decision:
        """The peer's answer to a registration of ours, or its repetition."""
        relation = link.relation
        answers = request.headers["x-correlation-id"]
        mine = relation.offer is not None and relation.offer.method == "POST" and relation.offer.request_id == answers
        if not mine and answers != relation.answered:
            raise MalformedMessage("X-Correlation-ID: answers no registration of ours")
        if credential is not (Credential.OFFERED if mine else Credential.CURRENT):
            raise NotAuthorised("the answer to a registration comes with the token that it brought")
        after = session.answer_offer(
            relation if mine else replace(relation, offer=None),
            token_out_sealed=self.seal(body.token, link.record("out")),
            base_url=base_url,
        )
        if not mine:
            after = replace(after, offer=relation.offer)
        return Decision(message, (noted("oscp.registered", message, base_url),), after)

    def _update(self, link: Link, request: Request, message: MessageRef) -> Decision:
        body = _decode(wire.Register, link, request)
        base_url = self._chosen(link, body)
        relation = replace(
            link.relation.moved(Trigger.UPDATE),
            token_out_sealed=self.seal(body.token, link.record("out")),
            base_url=base_url,
        )
        return Decision(message, (noted("oscp.register_updated", message, base_url),), relation)

    def _chosen(self, link: Link, body: wire.Register) -> str:
        for offered in body.version_url:
            if offered.version == wire.VERSION:
                base_url = trimmed_base_url(offered.base_url)
                self.check_url(link.id, base_url)
                return base_url
        raise ProtocolViolation(f"no common version; this side speaks {wire.VERSION}", code="oscp.no-common-version")


def trimmed_base_url(text: str) -> str:
    """Where a peer wants to be called, without a trailing slash.

    Raises:
        MalformedMessage: paths cannot be appended to it.
    """
    if {"?", "#", "\\"} & set(text):
        raise MalformedMessage("version_url.base_url: must be a plain address without query")
    return text.rstrip("/")


# --- the plain messages -------------------------------------------------------------------------


def _handshake(link: Link, request: Request, message: MessageRef) -> Decision:
    wanted = _decode(wire.Handshake, link, request).required_behaviour or wire.RequiredBehaviour()
    relation = session.handshaken(
        link.relation,
        request_id=message.message_id,
        until=request.received_at + CALLBACK_EXPIRY,
        heartbeat_s=_seconds(wanted),
        configuration=_configuration(wanted),
    )
    until = alive_until(link, message)
    events = (noted("oscp.handshake", message), SourceHeard(SourceId(link.id), until, message))
    acknowledge = owed(link, ACKNOWLEDGE, message, expires_after=CALLBACK_EXPIRY)
    return Decision(message, events, relation, link.listening.heard(until), (acknowledge,))


def _acknowledge(link: Link, request: Request, message: MessageRef) -> Decision:
    told = _decode(wire.HandshakeAcknowledge, link, request).required_behaviour
    answers = request.headers.get("x-correlation-id", "")
    relation = link.relation
    if not relation.shaking or answers not in ("", relation.shaking):
        # Answers no handshake of ours; a peer that acknowledges nevertheless tells what it wants.
        after = replace(relation, heartbeat_s=_seconds(told)) if told else None
        return Decision(message, (noted("oscp.handshake_acknowledge", message, "answers no handshake of ours"),), after)
    wanted = told or wire.RequiredBehaviour()
    after = session.shaken(relation, heartbeat_s=_seconds(wanted), configuration=_configuration(wanted))
    until = alive_until(link, message)
    events = (noted("oscp.handshake_acknowledge", message), SourceHeard(SourceId(link.id), until, message))
    return Decision(message, events, after, link.listening.heard(until))


def _configuration(wanted: wire.RequiredBehaviour) -> tuple[str, ...]:
    return tuple(c.value for c in wanted.measurement_configuration)


def _heartbeat(link: Link, request: Request, message: MessageRef) -> Decision:
    told = _decode(wire.Heartbeat, link, request).offline_mode_at
    until = translate.offline_at(
        told, now=request.received_at, interval=link.interval, naive_zone=link.dialect.naive_zone()
    )
    relation = link.relation.moved(Trigger.HEARD)
    heard = SourceHeard(SourceId(link.id), until, message)
    return Decision(message, (heard,), relation, link.listening.heard(until), durable=False)


def _end(link: Link, message: MessageRef) -> Decision:
    ended = SourceEnded(SourceId(link.id), "relation ended by the peer", message)
    return Decision(message, (ended,), session.ended(link.relation), Listening())


def _seconds(wanted: wire.RequiredBehaviour) -> int | None:
    # Whole seconds, down: earlier than asked is never late.
    return None if wanted.heartbeat_interval is None else int(wanted.heartbeat_interval)


# --- what holds for every message -----------------------------------------------------------------


def _token(headers: Mapping[str, str], schemes: Collection[str]) -> str:
    value = headers.get("authorization")
    if value is None:
        raise _unauthenticated("Authorization is missing; expected: Token <token>")
    scheme, _, token = value.partition(" ")
    token = token.strip(" ")
    if scheme.lower() not in schemes or not _VISIBLE_TOKEN.fullmatch(token):
        raise _unauthenticated("Authorization is malformed; expected: Token <token>")
    return token


def _unauthenticated(text: str) -> NotAuthorised:
    return NotAuthorised(text, code="oscp.unauthenticated")


def _admit(link: Link, credential: Credential, request: Request) -> None:
    if request.endpoint == "register" and link.dialect.onboarding == "provisioned":
        # The configuration would win at the next start, and the pair would be apart.
        raise ProtocolViolation("this relation is configured; it is not registered", code="oscp.provisioned")
    is_start = (request.method, request.endpoint) == ("POST", "register")
    if credential is Credential.ONBOARDING and not is_start:
        raise NotAuthorised("this token is good for a registration only", code="oscp.not-registered")
    if credential is Credential.OFFERED and not (is_start and "x-correlation-id" in request.headers):
        raise NotAuthorised("this token is good for the answer to a registration only", code="oscp.not-registered")
    guarded = request.endpoint in ("heartbeat", "update_group_capacity_forecast")
    if link.dialect.handshake_required and guarded and link.relation.state is not State.ONLINE:
        raise ProtocolViolation("handshake required", code="oscp.handshake-required")


def _message_id(link: Link, request: Request) -> tuple[str, tuple[str, ...]]:
    value = request.headers.get("x-request-id")
    if value is None and link.dialect.request_id == "synthesise":
        digest = sha256_hex(request.body)
        return derive("syn", request.received_at, link.id, request.channel, digest), ("SYNTHETIC_REQUEST_ID",)
    if value is None:
        raise MalformedMessage("X-Request-ID is missing")
    if not _VISIBLE_ID.fullmatch(value):
        raise MalformedMessage("X-Request-ID: must be 1 to 255 visible ASCII characters")
    correlation = request.headers.get("x-correlation-id")
    if correlation is not None and not _VISIBLE_ID.fullmatch(correlation):
        raise MalformedMessage("X-Correlation-ID: must be 1 to 255 visible ASCII characters")
    return value, ()


def _place(request: Request) -> Place | None:
    place = read_place(*(request.headers.get(name) for name in ("x-segment-index", "x-segment-count")))
    if place is not None and request.endpoint not in SEGMENTABLE:
        raise MalformedMessage("X-Segment-Count: this message has nothing that could come in segments")
    return place


def _decode(model: type[wire.M], link: Link, request: Request) -> wire.M:
    return wire.decode(model, request.body, numeric_strings=link.dialect.numeric_strings)
