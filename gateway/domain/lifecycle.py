"""The one transition table of an operating envelope. All its states live here, and nothing else.

The table does not know clocks, blocks or sources: who calls it decides which trigger has come.
An absent key is the error. The diagram in the docs and the exhaustive test come from it.
"""

from __future__ import annotations

from enum import StrEnum

from gateway.domain.errors import IllegalTransition


class State(StrEnum):
    """Where an envelope stands."""

    RECEIVED = "RECEIVED"
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    FALLBACK_ELIGIBLE = "FALLBACK_ELIGIBLE"
    ACTIVE_FALLBACK = "ACTIVE_FALLBACK"
    EXPIRED = "EXPIRED"
    WITHDRAWN = "WITHDRAWN"

    @property
    def is_final(self) -> bool:
        """Whether nothing leads out of it."""
        return not TRANSITIONS[self]


class Trigger(StrEnum):
    """What moves an envelope."""

    COVERS_NOW = "covers_now"
    LIES_AHEAD = "lies_ahead"
    ALL_PAST = "all_past"
    STARTS = "starts"
    STARTS_WITHOUT_SOURCE = "starts_without_source"
    SOURCE_LOST = "source_lost"
    GAP = "gap"
    ENDED = "ended"
    GRACE_OVER = "grace_over"
    PRIMARY_BACK = "primary_back"
    RECOVERED = "recovered"
    FALLBACK_ENDED = "fallback_ended"
    WITHDRAW = "withdraw"


TRANSITIONS: dict[State, dict[Trigger, State]] = {
    State.RECEIVED: {
        Trigger.COVERS_NOW: State.ACTIVE,
        Trigger.LIES_AHEAD: State.PENDING,
        Trigger.ALL_PAST: State.EXPIRED,
    },
    State.PENDING: {
        Trigger.STARTS: State.ACTIVE,
        Trigger.STARTS_WITHOUT_SOURCE: State.FALLBACK_ELIGIBLE,
        Trigger.ENDED: State.EXPIRED,
        Trigger.WITHDRAW: State.WITHDRAWN,
    },
    State.ACTIVE: {
        Trigger.SOURCE_LOST: State.FALLBACK_ELIGIBLE,
        Trigger.GAP: State.FALLBACK_ELIGIBLE,
        Trigger.ENDED: State.EXPIRED,
        Trigger.WITHDRAW: State.WITHDRAWN,
    },
    State.FALLBACK_ELIGIBLE: {
        Trigger.GRACE_OVER: State.ACTIVE_FALLBACK,
        Trigger.PRIMARY_BACK: State.ACTIVE,
        Trigger.ENDED: State.EXPIRED,
        Trigger.WITHDRAW: State.WITHDRAWN,
    },
    State.ACTIVE_FALLBACK: {
        Trigger.RECOVERED: State.ACTIVE,
        Trigger.FALLBACK_ENDED: State.EXPIRED,
        Trigger.WITHDRAW: State.WITHDRAWN,
    },
    State.EXPIRED: {},
    State.WITHDRAWN: {},
}


def advance(state: State, trigger: Trigger) -> State:
    """Next state.

    Raises:
        IllegalTransition: ``trigger`` means nothing in ``state``; nothing changed.
    """
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise IllegalTransition(state, trigger) from None
