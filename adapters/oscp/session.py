"""One peer's relation as a table: registration, handshake, silence, end. No I/O, no clock.

::

    unregistered ─register→ registering ─callback done→ registered ─handshake→ handshaking
         ↑                      │ callback dead                        ack done │ ↑ handshake
         └──────────────────────┘                                              ↓ │
                                            offline ←─silent── online ←────────┘ │
                                               └──heard──→ online ─handshake─────┘

A new registration of a known peer swaps tokens beside the running relation: only its success
moves the state (back to *registered*, a handshake is due again). ``end`` leads out of everything
but *unregistered*; from *ended* only a new registration leads on.

Either side may start a registration and, by dialect, a handshake; the table is the same. Where
the peer starts, the answer that we owe is a :class:`Swap`; where we start, what we wait for is an
:class:`Offer`. Both may be open at once.

Tokens: A is the onboarding token of the configuration, B is what the starting side hands out, C
what the answering side does. Of what peers show us a SHA-256 is kept; what we show, and a token
that is on its way to a peer, are sealed (``vault.py``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from gateway.domain.errors import IllegalTransition
from gateway.domain.timeline import parse_rfc3339, rfc3339


class State(StrEnum):
    """Of the relation to one peer."""

    UNREGISTERED = "unregistered"
    REGISTERING = "registering"
    REGISTERED = "registered"
    HANDSHAKING = "handshaking"
    ONLINE = "online"
    OFFLINE = "offline"
    ENDED = "ended"


class Trigger(StrEnum):
    """What moves it."""

    REGISTER = "register"
    CALLBACK_DONE = "callback done"
    CALLBACK_DEAD = "callback dead"
    UPDATE = "update"
    HANDSHAKE = "handshake"
    ACK_DONE = "ack done"
    ACK_DEAD = "ack dead"
    HEARD = "heard"
    SILENT = "silent"
    END = "end"


_S, _T = State, Trigger

TRANSITIONS: dict[State, dict[Trigger, State]] = {
    _S.UNREGISTERED: {_T.REGISTER: _S.REGISTERING},
    _S.REGISTERING: {
        _T.REGISTER: _S.REGISTERING,
        _T.CALLBACK_DONE: _S.REGISTERED,
        _T.CALLBACK_DEAD: _S.UNREGISTERED,
        _T.END: _S.ENDED,
    },
    _S.REGISTERED: {
        _T.REGISTER: _S.REGISTERED,
        _T.CALLBACK_DONE: _S.REGISTERED,
        _T.CALLBACK_DEAD: _S.REGISTERED,
        _T.UPDATE: _S.REGISTERED,
        _T.HANDSHAKE: _S.HANDSHAKING,
        _T.HEARD: _S.REGISTERED,
        _T.END: _S.ENDED,
    },
    _S.HANDSHAKING: {
        _T.REGISTER: _S.HANDSHAKING,
        _T.CALLBACK_DONE: _S.REGISTERED,
        _T.CALLBACK_DEAD: _S.HANDSHAKING,
        _T.UPDATE: _S.HANDSHAKING,
        _T.HANDSHAKE: _S.HANDSHAKING,
        _T.ACK_DONE: _S.ONLINE,
        _T.ACK_DEAD: _S.REGISTERED,
        _T.HEARD: _S.HANDSHAKING,
        _T.END: _S.ENDED,
    },
    _S.ONLINE: {
        _T.REGISTER: _S.ONLINE,
        _T.CALLBACK_DONE: _S.REGISTERED,
        _T.CALLBACK_DEAD: _S.ONLINE,
        _T.UPDATE: _S.ONLINE,
        _T.HANDSHAKE: _S.HANDSHAKING,
        # Both sides had started a handshake: the second acknowledge changes nothing.
        _T.ACK_DONE: _S.ONLINE,
        _T.ACK_DEAD: _S.ONLINE,
        _T.HEARD: _S.ONLINE,
        _T.SILENT: _S.OFFLINE,
        _T.END: _S.ENDED,
    },
    _S.OFFLINE: {
        _T.REGISTER: _S.OFFLINE,
        _T.CALLBACK_DONE: _S.REGISTERED,
        _T.CALLBACK_DEAD: _S.OFFLINE,
        _T.UPDATE: _S.OFFLINE,
        _T.HANDSHAKE: _S.HANDSHAKING,
        _T.ACK_DONE: _S.ONLINE,
        _T.ACK_DEAD: _S.OFFLINE,
        _T.HEARD: _S.ONLINE,
        _T.END: _S.ENDED,
    },
    _S.ENDED: {_T.REGISTER: _S.REGISTERING},
}

ACKNOWLEDGE_MIN = timedelta(minutes=1)
ACKNOWLEDGE_MAX = timedelta(hours=1)
"""Bounds of the time that the acknowledge of a handshake of ours may take; then it is given up."""

SLOWEST_BEAT = timedelta(minutes=15)
"""A peer that takes no heartbeats is tried this often at the least, unless it wants them more rarely."""

CONNECTED = frozenset({State.REGISTERED, State.HANDSHAKING, State.ONLINE, State.OFFLINE})
"""States in which facts may be sent to the peer."""


def advance(state: State, trigger: Trigger) -> State:
    """Next state.

    Raises:
        IllegalTransition: ``trigger`` means nothing in ``state``; nothing changed.
    """
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise IllegalTransition(state, trigger) from None


@dataclass(frozen=True, slots=True)
class Swap:
    """A registration whose answer is still owed: ``request_id`` started it, C is on its way.

    ``token_sealed`` is C; ``by_onboarding`` when the peer came with A, which dies on success. Given
    up at ``until``.
    """

    request_id: str
    token_sha256: str
    token_sealed: str
    by_onboarding: bool
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A ``register`` that we started: the token that we offer for the peer's calls to us.

    A ``POST`` waits for the peer's own register, a ``PUT`` for its 204 or for the first use of the
    token, both until ``until`` at the latest.
    """

    request_id: str
    method: str
    token_sha256: str
    token_sealed: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Relation:
    """Everything about a peer that must outlive us; one adapter row. Never holds a clear token.

    ``heartbeat_s``: interval in which the peer wants our heartbeats, None for never.
    ``acknowledging``: request id of the handshake whose acknowledge is owed. ``void_sha256``: the
    onboarding token that has been used up. ``answered``: our last register that was answered.
    ``shaking``: our handshake whose acknowledge has not come; ``shakes``: how many before it were
    given up. Either acknowledge is given up at its ``…_until``.
    """

    state: State = State.UNREGISTERED
    token_in_sha256: str = ""
    token_out_sealed: str = ""
    base_url: str = ""
    void_sha256: str = ""
    swap: Swap | None = None
    acknowledging: str = ""
    heartbeat_s: int | None = None
    measurement_configuration: tuple[str, ...] = ()
    offer: Offer | None = None
    answered: str = ""
    shaking: str = ""
    shaking_until: datetime | None = None
    shakes: int = 0
    acknowledging_until: datetime | None = None

    def moved(self, trigger: Trigger) -> Relation:
        """The same relation after a trigger without data.

        Raises:
            IllegalTransition: it means nothing now.
        """
        return replace(self, state=advance(self.state, trigger))

    def to_row(self) -> bytes:
        """JSON of the adapter row."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True, default=rfc3339).encode()

    @classmethod
    def from_row(cls, row: bytes) -> Relation:
        """The inverse of :meth:`to_row`."""
        data = json.loads(row)
        swap, offer = data.pop("swap"), data.pop("offer", None)
        return cls(
            **{
                **data,
                "state": State(data["state"]),
                "swap": Swap(**{**swap, "until": _instant(swap.get("until"))}) if swap else None,
                "offer": Offer(**{**offer, "until": parse_rfc3339(offer["until"])}) if offer else None,
                "measurement_configuration": tuple(data["measurement_configuration"]),
                "shaking_until": _instant(data.get("shaking_until")),
                "acknowledging_until": _instant(data.get("acknowledging_until")),
            }
        )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else parse_rfc3339(text)


def begin_swap(relation: Relation, *, swap: Swap, token_out_sealed: str, base_url: str) -> Relation:
    """Steps 2 and 3 of a registration: B and the peer's address hold at once, C is owed."""
    return replace(relation.moved(Trigger.REGISTER), swap=swap, token_out_sealed=token_out_sealed, base_url=base_url)


def finish_swap(relation: Relation, onboarding_sha256: str) -> Relation:
    """Step 5: the peer holds C. Only now the token it came with is void."""
    swap = relation.swap
    if swap is None:
        return relation
    return replace(
        relation.moved(Trigger.CALLBACK_DONE),
        swap=None,
        token_in_sha256=swap.token_sha256,
        void_sha256=onboarding_sha256 if swap.by_onboarding else relation.void_sha256,
        acknowledging="",
        shaking="",
        shakes=0,
    )


def abandon_swap(relation: Relation) -> Relation:
    """The peer refused C: whatever token it had before stays valid."""
    if relation.offer is not None and relation.offer.method == "POST":
        # A registration that we started goes on.
        return replace(relation, swap=None)
    return replace(relation.moved(Trigger.CALLBACK_DEAD), swap=None)


def begin_offer(relation: Relation, offer: Offer) -> Relation:
    """We start a registration (``POST``) or change it (``PUT``). Nothing else moves yet.

    Raises:
        IllegalTransition: there is no relation that a ``PUT`` could change.
    """
    return replace(relation.moved(Trigger.REGISTER if offer.method == "POST" else Trigger.UPDATE), offer=offer)


def answer_offer(relation: Relation, *, token_out_sealed: str, base_url: str) -> Relation:
    """The peer answered our registration with its own: both sides have their tokens."""
    if relation.offer is None:
        return replace(relation, token_out_sealed=token_out_sealed, base_url=base_url)
    return replace(
        relation.moved(Trigger.CALLBACK_DONE),
        offer=None,
        answered=relation.offer.request_id,
        token_in_sha256=relation.offer.token_sha256,
        token_out_sealed=token_out_sealed,
        base_url=base_url,
        acknowledging="",
        shaking="",
        shakes=0,
    )


def take_offer(relation: Relation) -> Relation:
    """The peer knows the token of our ``PUT``: it replaces the old one."""
    if relation.offer is None:
        return relation
    return replace(relation, offer=None, token_in_sha256=relation.offer.token_sha256)


def abandon_offer(relation: Relation) -> Relation:
    """The peer refused what we offered, or never answered: what it had before stays valid."""
    if relation.offer is None or relation.offer.method == "PUT":
        return replace(relation, offer=None)
    if relation.swap is not None:
        # A registration that the peer started goes on.
        return replace(relation, offer=None)
    return replace(relation.moved(Trigger.CALLBACK_DEAD), offer=None)


def begin_handshake(relation: Relation, request_id: str, now: datetime) -> Relation:
    """We start a handshake; its acknowledge is awaited.

    A relation that had one before goes on meanwhile: ours may come to nothing.
    """
    begun = relation if relation.state in (State.ONLINE, State.OFFLINE) else relation.moved(Trigger.HANDSHAKE)
    return replace(begun, shaking=request_id, shaking_until=now + acknowledge_window(relation.shakes))


def acknowledge_window(given_up: int) -> timedelta:
    """How long the acknowledge of our next handshake is awaited, after so many in vain."""
    return min(ACKNOWLEDGE_MIN * (1 << min(given_up, 16)), ACKNOWLEDGE_MAX)


def shaken(relation: Relation, *, heartbeat_s: int | None, configuration: tuple[str, ...]) -> Relation:
    """The acknowledge of our handshake came."""
    return replace(
        relation.moved(Trigger.ACK_DONE),
        shaking="",
        shakes=0,
        heartbeat_s=heartbeat_s,
        measurement_configuration=configuration,
    )


def unshaken(relation: Relation) -> Relation:
    """The peer refused our handshake, or never acknowledged it."""
    return replace(relation.moved(Trigger.ACK_DEAD), shaking="", shakes=relation.shakes + 1)


def handshaken(
    relation: Relation, *, request_id: str, until: datetime, heartbeat_s: int | None, configuration: tuple[str, ...]
) -> Relation:
    """A handshake came; its acknowledge is owed until then."""
    return replace(
        relation.moved(Trigger.HANDSHAKE),
        acknowledging=request_id,
        acknowledging_until=until,
        shakes=0,
        heartbeat_s=heartbeat_s,
        measurement_configuration=configuration,
    )


def acknowledged(relation: Relation, trigger: Trigger) -> Relation:
    """The acknowledge arrived (``ACK_DONE``) or is given up (``ACK_DEAD``)."""
    return replace(relation.moved(trigger), acknowledging="")


def ended(relation: Relation) -> Relation:
    """The relation is over: every token of the pair is void, the onboarding token stays void."""
    return Relation(state=advance(relation.state, Trigger.END), void_sha256=relation.void_sha256)


@dataclass(frozen=True, slots=True)
class Listening:
    """Until when a peer counts as heard. Not stored: the controller keeps the deadline."""

    until: datetime | None = None

    def heard(self, until: datetime) -> Listening:
        """A newer promise replaces the older one, also by an earlier instant."""
        return Listening(until)

    def is_silent(self, now: datetime) -> bool:
        """Whether the promise has run out."""
        return self.until is not None and now >= self.until


def heartbeat_period(interval: timedelta) -> timedelta:
    """When to send the next heartbeat to a peer that wants one per ``interval``.

    A little early, so that a slow line does not make us late; never below half of it.
    """
    return min(interval * 0.9, max(interval * 0.5, interval - timedelta(seconds=5)))


def beat_after(interval: timedelta, missed: int, *, is_offline: bool) -> timedelta:
    """Until the next heartbeat, after so many in a row that were not taken.

    Twice as long after each, up to ``SLOWEST_BEAT``. While the peer is heard, one miss may be chance:
    slowing down at once would break what the last heartbeat promised.
    """
    period = heartbeat_period(interval)
    counted = missed if is_offline else missed - 1
    if counted <= 0:
        return period
    return max(period, min(period * (1 << min(counted, 16)), SLOWEST_BEAT))
