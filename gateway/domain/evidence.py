"""What is sealed: drafts of evidence entries and their canonical bytes. No log here, no clock.

An entry is RFC 8785 canonical JSON. Numbers are integers only, so that no float rounding can
make two writers disagree; what is not an integer is text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias, cast

import msgspec

from gateway.domain.errors import LocalError
from gateway.domain.ids import EvidenceId, PeerId

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"

MAX_ENTRY_BYTES = 60_000
"""C2SP tlog-tiles carry an entry behind a 16-bit length."""

_SAFE_INTEGER = 2**53
_AS_IT_IS = frozenset({str, bool, type(None)})


class Way(StrEnum):
    """Into the gateway, out of it, or inside."""

    IN = "in"
    OUT = "out"
    INTERNAL = "int"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who caused it. Empty strings where there is none (a timer)."""

    kind: str
    principal: str = ""
    listener: str = ""
    cert_sha256: str = ""


GATEWAY = Actor("gateway")


@dataclass(frozen=True, slots=True)
class RawRef:
    """The exact message, kept beside the log under its digest."""

    sha256: str
    size: int
    media: str


@dataclass(frozen=True, slots=True)
class MessageRef:
    """An inbound message as the domain knows it: opaque ids and a digest, no protocol."""

    peer: PeerId
    endpoint: str
    message_id: str
    received_at: datetime
    raw: RawRef | None = None
    actor: Actor = GATEWAY


class EvidenceDraft(msgspec.Struct, frozen=True, gc=False):
    """An entry before the log gave it a place.

    ``subject`` names what it is about (``node``, ``evse``, ``station``, ``envelope``,
    ``session``, ``command``, ``peer``, ``request_id``, ``group``); ``cause`` the ids of earlier
    entries that led to it; ``at`` the controller's instant. ``dedup`` is a natural key: a second
    draft with the same key makes no second entry.
    """

    id: EvidenceId
    type: str
    at: datetime
    subject: Mapping[str, str] = msgspec.field(default_factory=dict)
    cause: tuple[EvidenceId, ...] = ()
    way: Way = Way.INTERNAL
    actor: Actor = GATEWAY
    raw: RawRef | None = None
    body: Mapping[str, Json] = msgspec.field(default_factory=dict)
    result: str = "ok"
    reason: str = ""
    dedup: str = ""


def canonical(value: Json) -> bytes:
    """RFC 8785 bytes of a value without floats.

    Raises:
        LocalError: a float, an integer beyond 2**53, a key that is no text, text that is no Unicode.
    """
    try:
        return msgspec.json.encode(_sorted(value))
    except UnicodeEncodeError as problem:
        raise LocalError(f"text that is no Unicode cannot stand in evidence: {problem.reason}") from problem


def sha256_hex(data: bytes) -> str:
    """Lower-case hex digest."""
    return hashlib.sha256(data).hexdigest()


def _sorted(value: Json) -> Json:
    """The value with its keys in order, checked on the way. The common types come first: this is a hot path."""
    kind = type(value)
    if kind in _AS_IT_IS:
        return value
    if kind is dict or isinstance(value, Mapping):
        return _sorted_mapping(cast(Mapping[str, Json], value))
    if kind is list or kind is tuple:
        return [item if type(item) in _AS_IT_IS else _sorted(item) for item in cast(Sequence[Json], value)]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            raise LocalError(f"integer {value} does not survive JSON; write it as text")
        return value
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_sorted(item) for item in value]
    raise LocalError(f"{kind.__name__} cannot stand in evidence")


def _sorted_mapping(value: Mapping[str, Json]) -> Json:
    # RFC 8785 §3.2.3: keys by UTF-16 code units; among ASCII letters that is their own order.
    try:
        ascii_only = "".join(value).isascii()
    except TypeError:
        raise LocalError(f"a key of {sorted(map(repr, value))} is no text") from None
    out: dict[str, Json] = {}
    for key in sorted(value) if ascii_only else sorted(value, key=lambda k: k.encode("utf-16-be")):
        item = value[key]
        out[key] = item if type(item) in _AS_IT_IS else _sorted(item)
    return out
