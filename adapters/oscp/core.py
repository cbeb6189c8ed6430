"""What each message means: the dispatcher between routes and the site's gate. No I/O, no clock.

A request comes in with its time and the verified peer; a :class:`Decision` comes out that names
everything to be stored before the answer may leave. Nothing changes here until the caller has
stored it and adopts the new relation.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from adapters.oscp import session, translate, wire
from adapters.oscp.dialect import Dialect
from adapters.oscp.session import Listening, Relation, State, Swap, Trigger
from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import RevisionMode
from gateway.domain.errors import MalformedMessage, NotAuthorised, ProtocolViolation, UnknownGroup
from gateway.domain.events import EnvelopeRevised, Event, MessageNoted, SourceEnded, SourceHeard
from gateway.domain.evidence import MessageRef, RawRef, sha256_hex
from gateway.domain.ids import PeerId, SourceId, derive
from gateway.kit.peer import PeerInfo
from gateway.ports.adapter import Trust
from gateway.ports.gate import AdapterRow
from gateway.ports.grid import GroupBinding, PeerSettings

ADAPTER_NAME = "oscp"
BASE_PATH = "/oscp/fp/2.0"
ROW_PREFIX = "relation/"

REGISTER_CALLBACK = "oscp.register"
ACKNOWLEDGE = "oscp.handshake_acknowledge"

CALLBACK_DELAY = timedelta(seconds=1)
"""The answer must have left before we call back: single-threaded peers would block themselves."""

CALLBACK_EXPIRY = timedelta(minutes=10)
"""A registration that could not be answered for so long has to be started again."""

METHODS: Mapping[str, tuple[str, ...]] = {
    "register": ("POST", "PUT", "DELETE"),
    "handshake": ("POST",),
    "handshake_acknowledge": ("POST",),
    "heartbeat": ("POST",),
    "update_group_capacity_forecast": ("POST",),
}
"""Endpoints of a Flexibility Provider and their methods."""

SPELLINGS: Mapping[str, str] = {"handshake_acknowledgment": "handshake_acknowledge"}
"""Paths that peers use for an endpoint besides its own."""

_VISIBLE_ID = re.compile(r"[\x21-\x7e]{1,255}")
_VISIBLE_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")


class Credential(StrEnum):
    """Which token a peer came with."""

    ONBOARDING = "onboarding"
    CURRENT = "current"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Request:
    """A message as it came; header names are lower case."""

    method: str
    endpoint: str
    headers: Mapping[str, str]
    body: bytes
    info: PeerInfo
    received_at: datetime

    @property
    def channel(self) -> str:
        """Name of the endpoint in evidence and in the key of deduplication."""
        suffix = "" if self.method == "POST" else f":{self.method.lower()}"
        return f"{BASE_PATH}/{self.endpoint}{suffix}"


@dataclass(slots=True)
class Link:
    """One peer while we run: the only mutable thing of the adapter's core."""

    settings: PeerSettings
    dialect: Dialect
    groups: Mapping[str, GroupBinding]
    relation: Relation = field(default_factory=Relation)
    listening: Listening = field(default_factory=Listening)
    onboarding_sha256: str = ""

    @property
    def id(self) -> PeerId:
        """The peer's."""
        return self.settings.id

    @property
    def interval(self) -> timedelta:
        """In which we ask to be heard from."""
        return timedelta(seconds=self.dialect.heartbeat_interval_s)

    def tokens(self) -> Iterable[tuple[Credential, str]]:
        """Digests of the tokens that are valid now; an empty one never matches."""
        relation = self.relation
        yield Credential.CURRENT, relation.token_in_sha256
        yield Credential.PENDING, relation.swap.token_sha256 if relation.swap else ""
        used_up = self.onboarding_sha256 == relation.void_sha256
        yield Credential.ONBOARDING, "" if used_up else self.onboarding_sha256

    def row(self, relation: Relation) -> AdapterRow:
        """The adapter row of a relation of this peer."""
        return AdapterRow(ADAPTER_NAME, f"{ROW_PREFIX}{self.id}", relation.to_row())

    def record(self, way: str) -> str:
        """Name under which a token of this peer is sealed: ``in`` (C) or ``out`` (B)."""
        return f"{ADAPTER_NAME}/{self.id}/{way}"

    def let_time_pass(self, now: datetime) -> bool:
        """Go offline when the peer's promise has run out; True exactly once."""
        if self.relation.state is State.ONLINE and self.listening.is_silent(now):
            self.relation = self.relation.moved(Trigger.SILENT)
            return True
        return False


@dataclass(frozen=True, slots=True)
class Decision:
    """What a message wants stored, and what holds once it is. ``durable`` False: store lazily."""

    message: MessageRef
    events: tuple[Event, ...]
    relation: Relation | None = None
    listening: Listening | None = None
    outbox: tuple[OutboxItem, ...] = ()
    durable: bool = True


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
        presented = sha256_hex(_token(headers).encode())
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
        _check_segments(request)
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
            case _, "update_group_capacity_forecast":
                return self._forecast(link, request, message, flags)
            case _:
                raise MalformedMessage("no such endpoint", code="oscp.no-such-endpoint")

    def _register(self, link: Link, credential: Credential, request: Request, message: MessageRef) -> Decision:
        if "x-correlation-id" in request.headers:
            raise MalformedMessage("X-Correlation-ID: answers no registration of ours")
        body = _decode(wire.Register, link, request)
        base_url = self._chosen(link, body)
        token = self.new_token()
        swap = Swap(
            request_id=message.message_id,
            token_sha256=sha256_hex(token.encode()),
            token_sealed=self.seal(token, link.record("in")),
            by_onboarding=credential is Credential.ONBOARDING,
        )
        relation = session.begin_swap(
            link.relation, swap=swap, token_out_sealed=self.seal(body.token, link.record("out")), base_url=base_url
        )
        callback = _owed(link, REGISTER_CALLBACK, message, expires_after=CALLBACK_EXPIRY)
        return Decision(message, (_noted("oscp.register", message, base_url),), relation, outbox=(callback,))

    def _update(self, link: Link, request: Request, message: MessageRef) -> Decision:
        body = _decode(wire.Register, link, request)
        base_url = self._chosen(link, body)
        relation = replace(
            link.relation.moved(Trigger.UPDATE),
            token_out_sealed=self.seal(body.token, link.record("out")),
            base_url=base_url,
        )
        return Decision(message, (_noted("oscp.register_updated", message, base_url),), relation)

    def _chosen(self, link: Link, body: wire.Register) -> str:
        for offered in body.version_url:
            if offered.version == wire.VERSION:
                base_url = trimmed_base_url(offered.base_url)
                self.check_url(link.id, base_url)
                return base_url
        raise ProtocolViolation(f"no common version; this side speaks {wire.VERSION}", code="oscp.no-common-version")

    def _forecast(self, link: Link, request: Request, message: MessageRef, flags: tuple[str, ...]) -> Decision:
        body = _decode(wire.UpdateGroupCapacityForecast, link, request)
        binding = self._binding(link, body.group_id)
        now = request.received_at
        limit = translate.limit_of(body, binding, now=now, naive_zone=link.dialect.naive_zone())
        if limit is None:
            return Decision(message, (_noted("oscp.optimum", message, f"advice for {body.group_id}, no effect"),))
        revised = EnvelopeRevised(
            source=SourceId(link.id),
            node=binding.node,
            direction=limit.direction,
            key=f"{ADAPTER_NAME}/{binding.group}",
            kind=limit.kind,
            blocks=limit.blocks,
            mode=RevisionMode.OVERLAY,
            message=message,
            correlation=message.message_id,
            flags=(*flags, *limit.flags),
        )
        heard = _heard_by_forecast(link, message)
        listening = link.listening.heard(heard.alive_until) if heard and heard.alive_until else None
        return Decision(message, (heard, revised) if heard else (revised,), listening=listening)

    def _binding(self, link: Link, group: str) -> GroupBinding:
        mine = link.groups.get(group)
        if mine is not None:
            return mine
        if any(group in other.groups for other in self.links.values()):
            raise NotAuthorised("group_id: not a group of this peer", code="oscp.foreign-group")
        raise UnknownGroup("group_id: unknown group")


def reference(request: Request, peer: PeerId, message_id: str) -> MessageRef:
    """The message as evidence names it."""
    raw = RawRef(sha256_hex(request.body), len(request.body), "application/json") if request.body else None
    principal = str(peer) or request.info.subject
    actor = request.info.actor("peer", principal)
    return MessageRef(peer, request.channel, message_id, request.received_at, raw, actor)


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
    configuration = tuple(c.value for c in wanted.measurement_configuration)
    if configuration and wire.MeasurementConfiguration.CONTINUOUS not in configuration:
        raise MalformedMessage("measurement_configuration: only CONTINUOUS registers are kept here")
    relation = session.handshaken(
        link.relation,
        request_id=message.message_id,
        heartbeat_s=_seconds(wanted),
        configuration=configuration,
    )
    alive_until = _alive_until(link, request.received_at)
    events = (_noted("oscp.handshake", message), SourceHeard(SourceId(link.id), alive_until, message))
    owed = _owed(link, ACKNOWLEDGE, message)
    return Decision(message, events, relation, link.listening.heard(alive_until), (owed,))


def _acknowledge(link: Link, request: Request, message: MessageRef) -> Decision:
    # We start no handshake; a peer that acknowledges nevertheless tells what it wants.
    wanted = _decode(wire.HandshakeAcknowledge, link, request).required_behaviour
    relation = replace(link.relation, heartbeat_s=_seconds(wanted)) if wanted else None
    noted = _noted("oscp.handshake_acknowledge", message, "answers no handshake of ours")
    return Decision(message, (noted,), relation)


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


def _heard_by_forecast(link: Link, message: MessageRef) -> SourceHeard | None:
    """A forecast is a sign of life where nothing else can be: before the handshake, or by dialect."""
    early = link.relation.state is State.REGISTERED
    if link.dialect.liveness != "forecast" and not early:
        return None
    return SourceHeard(SourceId(link.id), _alive_until(link, message.received_at), message)


def _alive_until(link: Link, now: datetime) -> datetime:
    if link.dialect.liveness == "forecast":
        return now + timedelta(seconds=link.dialect.silence_limit_s)
    return now + 2 * link.interval


def _seconds(wanted: wire.RequiredBehaviour) -> int | None:
    # Whole seconds, down: earlier than asked is never late.
    return None if wanted.heartbeat_interval is None else int(wanted.heartbeat_interval)


def _noted(type_: str, message: MessageRef, detail: str = "") -> MessageNoted:
    return MessageNoted(type_, message, detail)


def _owed(link: Link, kind: str, message: MessageRef, expires_after: timedelta | None = None) -> OutboxItem:
    at = message.received_at
    return OutboxItem(
        id=derive("msg", at, link.id, kind, message.message_id),
        peer=link.id,
        kind=kind,
        body={"answers": message.message_id},
        correlation=message.message_id,
        expires_at=at + expires_after if expires_after else None,
        not_before=at + CALLBACK_DELAY,
    )


# --- what holds for every message -----------------------------------------------------------------


def _token(headers: Mapping[str, str]) -> str:
    value = headers.get("authorization")
    if value is None:
        raise _unauthenticated("Authorization is missing; expected: Token <token>")
    scheme, _, token = value.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "token" or not _VISIBLE_TOKEN.fullmatch(token):
        raise _unauthenticated("Authorization is malformed; expected: Token <token>")
    return token


def _unauthenticated(text: str) -> NotAuthorised:
    return NotAuthorised(text, code="oscp.unauthenticated")


def _admit(link: Link, credential: Credential, request: Request) -> None:
    if credential is Credential.ONBOARDING and (request.method, request.endpoint) != ("POST", "register"):
        raise NotAuthorised("this token is good for a registration only", code="oscp.not-registered")
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


def _check_segments(request: Request) -> None:
    told = [request.headers.get(name, "1").strip() for name in ("x-segment-index", "x-segment-count")]
    if told != ["1", "1"]:
        raise ProtocolViolation("segmentation not supported yet", code="oscp.not-supported")


def _decode(model: type[wire.M], link: Link, request: Request) -> wire.M:
    return wire.decode(model, request.body, numeric_strings=link.dialect.numeric_strings)
