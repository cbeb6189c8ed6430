"""Messages that come in several parts: collecting them until all are there. No I/O, no clock.

Every part is a message of the same type; the blocks of all are joined in the order of their index.
A part 2..n names, in ``X-Correlation-ID``, the first part or the one before it: public sources say
both. So everything that an assembly has seen or been told of finds it again, in any order.

Parts are stored one by one before they are acknowledged, and nothing takes effect until the last
one has come. :class:`Pending` never changes: it says what it would be once the store has the part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.domain.envelope import Block
from gateway.domain.errors import MalformedMessage, PeerError
from gateway.domain.evidence import Actor, MessageRef, RawRef, sha256_hex
from gateway.domain.ids import PeerId
from gateway.domain.timeline import parse_rfc3339, rfc3339

ROW_PREFIX = "segment/"

ASSEMBLY_AGE = timedelta(seconds=60)
"""How long all parts may take together; then they are dropped."""

MAX_SEGMENTS = 1_000
MAX_BLOCKS = 100_000
MAX_BYTES = 16 * 1024 * 1024
"""Of one message in parts."""

MAX_TOLD_BLOCKS = 12_000
"""Different values that a joined forecast may have: 35 days of quarter hours for three phases."""

MAX_ASSEMBLIES = 4
"""Per peer: it sends one message after the other, and may repeat itself."""

MAX_REMEMBERED = 2_000
"""Request ids of dropped parts that are told from new ones, per peer."""


class TooLarge(PeerError):
    """More than one message may have, parts together."""

    code = "oscp.segments-too-large"


class TooMany(PeerError):
    """A peer has begun more messages than it may leave open."""

    code = "oscp.segments-too-many"


@dataclass(frozen=True, slots=True)
class Place:
    """Headers of a part: which of how many."""

    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One part. ``subject`` is what all parts of a message have in common: group and type."""

    message: MessageRef
    place: Place
    correlation: str
    body: bytes
    subject: tuple[str, str]
    blocks: tuple[Block, ...]

    @property
    def id(self) -> str:
        """Its request id."""
        return self.message.message_id

    @property
    def names(self) -> frozenset[str]:
        """Request ids by which its assembly is found. A first part's correlation is no such one."""
        return frozenset({self.id} if self.place.index == 1 else {self.id, self.correlation})

    def key(self) -> str:
        """Name of its row."""
        return f"{ROW_PREFIX}{self.message.peer}/{sha256_hex(self.id.encode())[:32]}"

    def to_row(self) -> bytes:
        """One line of JSON, then the exact body."""
        actor = self.message.actor
        head = {
            "id": self.id,
            "endpoint": self.message.endpoint,
            "received_at": rfc3339(self.message.received_at),
            "actor": [actor.kind, actor.principal, actor.listener, actor.cert_sha256],
            "place": [self.place.index, self.place.count],
            "correlation": self.correlation,
        }
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + self.body


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A part as its row has it: its content is read by whoever knows the peer."""

    message: MessageRef
    place: Place
    correlation: str
    body: bytes

    @classmethod
    def from_row(cls, row: bytes, peer: PeerId) -> StoredSegment:
        """The inverse of :meth:`Segment.to_row`."""
        line, _, body = row.partition(b"\n")
        head = json.loads(line)
        message = MessageRef(
            peer,
            head["endpoint"],
            head["id"],
            parse_rfc3339(head["received_at"]),
            RawRef(sha256_hex(body), len(body), "application/json"),
            Actor(*head["actor"]),
        )
        return cls(message, Place(*head["place"]), head["correlation"], body)


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one message that have come, in order of arrival."""

    segments: tuple[Segment, ...]
    names: frozenset[str]

    @property
    def count(self) -> int:
        """How many parts the message has."""
        return self.segments[0].place.count

    @property
    def deadline(self) -> datetime:
        """When it is dropped unless it is complete."""
        return min(s.message.received_at for s in self.segments) + ASSEMBLY_AGE

    @property
    def is_complete(self) -> bool:
        """Whether every part is there."""
        return len(self.segments) == self.count

    def in_order(self) -> tuple[Segment, ...]:
        """The parts by index."""
        return tuple(sorted(self.segments, key=lambda s: s.place.index))

    def at(self, index: int) -> Segment | None:
        """The part with an index."""
        return next((s for s in self.segments if s.place.index == index), None)


class Misfit(Exception):
    """A part that does not fit the others: it is refused with ``problem``, and all are dropped."""

    def __init__(self, problem: PeerError, assembly: Assembly) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.assembly = assembly


@dataclass(frozen=True, slots=True)
class Pending:
    """What one peer has begun to tell. ``dropped``: request ids of parts that were dropped."""

    assemblies: tuple[Assembly, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def deadline(self) -> datetime | None:
        """When the next assembly is dropped."""
        return min((a.deadline for a in self.assemblies), default=None)

    def due(self, now: datetime) -> tuple[Assembly, ...]:
        """What has to be dropped."""
        return tuple(a for a in self.assemblies if a.deadline <= now)

    def knows(self, request_id: str) -> bool:
        """Whether a part under this request id waits."""
        return any(s.id == request_id for a in self.assemblies for s in a.segments)

    def place(self, segment: Segment) -> tuple[Pending, Assembly, bool]:
        """With one part more: what waits then, the assembly that it belongs to, and whether it is new.

        A part that is there already, under another request id, is not new and changes nothing.

        Raises:
            MalformedMessage: its assembly was dropped before.
            Misfit: it does not fit; the assembly must be dropped.
            TooMany: too much is open.
        """
        if segment.id in self.dropped or (segment.place.index > 1 and segment.correlation in self.dropped):
            raise MalformedMessage(
                "this message was dropped before it was complete; send all of it again under new request ids",
                code="oscp.segments-dropped",
            )
        mine = [a for a in self.assemblies if a.names & segment.names]
        others = tuple(a for a in self.assemblies if a not in mine)
        before = tuple(s for a in mine for s in a.segments)
        joined = Assembly((*before, segment), segment.names.union(*(a.names for a in mine)))
        known = next((s for s in before if s.place.index == segment.place.index), None)
        if known is not None and _is_same(known, segment):
            return self, joined, False
        _check(joined, before, segment, is_taken=known is not None)
        if not mine and len(others) >= MAX_ASSEMBLIES:
            raise TooMany(f"{MAX_ASSEMBLIES} messages are incomplete; finish one of them first")
        if joined.is_complete:
            return Pending(others, self.dropped), joined, True
        return Pending((*others, joined), self.dropped), joined, True

    def without(self, assemblies: Sequence[Assembly]) -> Pending:
        """After dropping what shares a part with ``assemblies``."""
        gone = {s.id for a in assemblies for s in a.segments}
        kept = tuple(a for a in self.assemblies if not any(s.id in gone for s in a.segments))
        dropped = tuple(s.id for a in self.assemblies if a not in kept for s in a.segments)
        return Pending(kept, (*self.dropped, *dropped)[-MAX_REMEMBERED:])


def read_place(index: str | None, count: str | None) -> Place | None:
    """The place that the headers tell; None for a message that comes whole.

    Raises:
        MalformedMessage: one header without the other, or no such number.
    """
    if index is None and count is None:
        return None
    numbers = []
    for name, text in (("X-Segment-Index", index), ("X-Segment-Count", count)):
        value = (text or "").strip()
        if not (value.isascii() and value.isdigit() and len(value) <= 4 and 1 <= int(value) <= MAX_SEGMENTS):
            raise MalformedMessage(f"{name}: must be a number from 1 to {MAX_SEGMENTS}")
        numbers.append(int(value))
    place = Place(*numbers)
    return None if place == Place(1, 1) else place


def _is_same(known: Segment, other: Segment) -> bool:
    return (known.place, known.body) == (other.place, other.body)


def _check(joined: Assembly, before: Sequence[Segment], segment: Segment, *, is_taken: bool) -> None:
    place = segment.place
    problem: PeerError | None = None
    if any(s.place.count != place.count for s in before):
        problem = _contradiction("X-Segment-Count: not the count of the other segments")
    elif place.index > place.count:
        problem = _contradiction(f"X-Segment-Index: {place.index} of {place.count}")
    elif any(s.subject != segment.subject for s in before):
        problem = _contradiction("group_id, type: not those of the other segments")
    elif is_taken:
        problem = _contradiction(f"X-Segment-Index: {place.index} came before, with another body")
    elif sum(len(s.body) for s in joined.segments) > MAX_BYTES:
        problem = TooLarge(f"the segments have more than {MAX_BYTES} bytes")
    elif sum(len(s.blocks) for s in joined.segments) > MAX_BLOCKS:
        problem = TooLarge(f"the segments have more than {MAX_BLOCKS} blocks")
    if problem is not None:
        raise Misfit(problem, joined)


def _contradiction(text: str) -> MalformedMessage:
    return MalformedMessage(text, code="oscp.segments-contradict")
