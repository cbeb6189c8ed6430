"""One peer while we run, a message of it as it came, and what is decided about it. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from adapters.oscp.adjusting import Ask
from adapters.oscp.dialect import Dialect
from adapters.oscp.oauth import ClientCredentials
from adapters.oscp.segments import Pending
from adapters.oscp.session import Listening, Relation, State, Trigger
from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import Block
from gateway.domain.errors import GatewayError
from gateway.domain.events import Event, MessageNoted
from gateway.domain.evidence import MessageRef, RawRef, sha256_hex
from gateway.domain.ids import PeerId, derive
from gateway.kit.peer import PeerInfo
from gateway.ports.gate import AdapterRow
from gateway.ports.grid import GroupBinding, PeerSettings

ADAPTER_NAME = "oscp"
BASE_PATH = "/oscp/fp/2.0"
ROW_PREFIX = "relation/"

REGISTER_CALLBACK = "oscp.register"
ACKNOWLEDGE = "oscp.handshake_acknowledge"
REGISTER_START = "oscp.register_start"
REGISTER_UPDATE = "oscp.register_update"
REGISTER_END = "oscp.register_end"
HANDSHAKE = "oscp.handshake"
ADJUST = "adjust"
"""Kinds of outgoing facts that are this adapter's own, besides the controller's."""

CALLBACK_DELAY = timedelta(seconds=1)
"""The answer must have left before we call back: single-threaded peers would block themselves."""

CALLBACK_EXPIRY = timedelta(minutes=10)
"""A registration that could not be answered for so long has to be started again."""

REMEMBERED_FORECASTS = 8
"""Per group and type: what held before something is asked for."""


class Credential(StrEnum):
    """Which token a peer came with."""

    ONBOARDING = "onboarding"
    CURRENT = "current"
    PENDING = "pending"
    OFFERED = "offered"


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
    """One peer while we run: the only mutable thing of the adapter's core.

    ``address`` is where it is according to the configuration, ``headers`` are sent with every call,
    ``credentials`` get the token that it wants to be shown, where that is fetched.
    ``heard_blocks`` are the last forecasts by group and type, in memory only. ``is_refused`` and
    ``is_rebuffed``: the peer refused a registration, or a handshake, of ours in this life.
    """

    settings: PeerSettings
    dialect: Dialect
    groups: Mapping[str, GroupBinding]
    relation: Relation = field(default_factory=Relation)
    listening: Listening = field(default_factory=Listening)
    onboarding_sha256: str = ""
    address: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: ClientCredentials | None = None
    pending: Pending = field(default_factory=Pending)
    asks: tuple[Ask, ...] = ()
    heard_blocks: dict[tuple[str, str], deque[tuple[Block, ...]]] = field(default_factory=dict)
    is_refused: bool = False
    is_rebuffed: bool = False

    @property
    def id(self) -> PeerId:
        """The peer's."""
        return self.settings.id

    @property
    def has_token(self) -> bool:
        """Whether there is something to show to the peer."""
        return bool(self.relation.token_out_sealed or self.credentials)

    @property
    def interval(self) -> timedelta:
        """In which we ask to be heard from."""
        return timedelta(seconds=self.dialect.heartbeat_interval_s)

    def tokens(self) -> Iterable[tuple[Credential, str]]:
        """Digests of the tokens that are valid now; an empty one never matches."""
        relation = self.relation
        yield Credential.CURRENT, relation.token_in_sha256
        yield Credential.PENDING, relation.swap.token_sha256 if relation.swap else ""
        yield Credential.OFFERED, relation.offer.token_sha256 if relation.offer else ""
        used_up = self.onboarding_sha256 == relation.void_sha256
        yield Credential.ONBOARDING, "" if used_up else self.onboarding_sha256

    def row(self, relation: Relation) -> AdapterRow:
        """The adapter row of a relation of this peer."""
        return AdapterRow(ADAPTER_NAME, f"{ROW_PREFIX}{self.id}", relation.to_row())

    def record(self, way: str) -> str:
        """Name under which a token of this peer is sealed: ``in`` for its calls, ``out`` for ours."""
        return f"{ADAPTER_NAME}/{self.id}/{way}"

    def let_time_pass(self, now: datetime) -> bool:
        """Go offline when the peer's promise has run out; True exactly once."""
        if self.relation.state is State.ONLINE and self.listening.is_silent(now):
            self.relation = self.relation.moved(Trigger.SILENT)
            return True
        return False

    def remember(self, group: str, type_: str, blocks: tuple[Block, ...]) -> None:
        """Keep what was told, for comparison with what is asked for later."""
        self.heard_blocks.setdefault((group, type_), deque(maxlen=REMEMBERED_FORECASTS)).append(blocks)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a message wants stored, and what holds once it is. ``durable`` False: store lazily.

    ``told``: group, type and blocks of a forecast that takes effect. ``refusal``: what is stored is
    the consequence of a message that is itself refused with this error.
    """

    message: MessageRef
    events: tuple[Event, ...]
    relation: Relation | None = None
    listening: Listening | None = None
    outbox: tuple[OutboxItem, ...] = ()
    durable: bool = True
    rows: tuple[AdapterRow, ...] = ()
    pending: Pending | None = None
    asks: tuple[Ask, ...] | None = None
    told: tuple[str, str, tuple[Block, ...]] | None = None
    refusal: GatewayError | None = None


def reference(request: Request, peer: PeerId, message_id: str) -> MessageRef:
    """The message as evidence names it."""
    raw = RawRef(sha256_hex(request.body), len(request.body), "application/json") if request.body else None
    principal = str(peer) or request.info.subject
    actor = request.info.actor("peer", principal)
    return MessageRef(peer, request.channel, message_id, request.received_at, raw, actor)


def noted(type_: str, message: MessageRef, detail: str = "") -> MessageNoted:
    """Evidence of a message without effect on limits."""
    return MessageNoted(type_, message, detail)


def owed(link: Link, kind: str, message: MessageRef, expires_after: timedelta | None = None) -> OutboxItem:
    """A call to the peer that answers its message, once the 204 has left."""
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
