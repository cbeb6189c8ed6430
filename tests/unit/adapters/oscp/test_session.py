"""The table of a relation, exhaustively, and its row."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.oscp.session import (
    TRANSITIONS,
    Relation,
    State,
    Swap,
    Trigger,
    abandon_swap,
    advance,
    begin_swap,
    ended,
    finish_swap,
    heartbeat_period,
)
from gateway.domain.errors import IllegalTransition

SWAP = Swap("q1", "c-digest", "c-sealed", by_onboarding=True)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_pair_of_state_and_trigger_is_decided(state: State, trigger: Trigger) -> None:
    if trigger in TRANSITIONS[state]:
        assert advance(state, trigger) is TRANSITIONS[state][trigger]
    else:
        with pytest.raises(IllegalTransition, match=f"cannot {trigger} in state {state}"):
            advance(state, trigger)


@pytest.mark.parametrize("state", State)
def test_every_state_but_the_first_can_be_reached(state: State) -> None:
    reached, frontier = {State.UNREGISTERED}, [State.UNREGISTERED]
    while frontier:
        new = set(TRANSITIONS[frontier.pop()].values()) - reached
        reached |= new
        frontier += new
    assert state in reached


@pytest.mark.parametrize("state", [s for s in State if s not in (State.UNREGISTERED, State.ENDED)])
def test_a_relation_can_end_from_everywhere(state: State) -> None:
    assert advance(state, Trigger.END) is State.ENDED


@pytest.mark.parametrize("state", State)
def test_from_every_state_a_registration_leads_back(state: State) -> None:
    assert Trigger.REGISTER in TRANSITIONS[state]


def test_the_onboarding_token_dies_with_success_only() -> None:
    begun = begin_swap(Relation(), swap=SWAP, token_out_sealed="b", base_url="https://x")
    assert begun.void_sha256 == ""
    assert abandon_swap(begun).void_sha256 == ""
    assert finish_swap(begun, "a-digest").void_sha256 == "a-digest"


def test_a_second_registration_leaves_the_first_in_force_until_it_succeeds() -> None:
    first = finish_swap(begin_swap(Relation(), swap=SWAP, token_out_sealed="b", base_url="https://x"), "a")
    again = Swap("q2", "d-digest", "d-sealed", by_onboarding=False)
    second = begin_swap(first, swap=again, token_out_sealed="b2", base_url="https://y")
    assert (second.state, second.token_in_sha256) == (State.REGISTERED, "c-digest")
    assert finish_swap(second, "a").token_in_sha256 == "d-digest"
    assert abandon_swap(second).token_in_sha256 == "c-digest"


def test_the_end_forgets_everything_but_the_void_token() -> None:
    relation = Relation(State.ONLINE, "c", "b", "https://x", "a", None, "", 30, ("CONTINUOUS",))
    assert ended(relation) == Relation(State.ENDED, void_sha256="a")


@given(
    st.builds(
        Relation,
        state=st.sampled_from(State),
        token_in_sha256=st.text(),
        base_url=st.text(),
        swap=st.none() | st.builds(Swap, st.text(), st.text(), st.text(), st.booleans()),
        heartbeat_s=st.none() | st.integers(1, 86_400),
        measurement_configuration=st.lists(st.text(), max_size=3).map(tuple),
    )
)
def test_a_row_brings_back_what_was_written(relation: Relation) -> None:
    assert Relation.from_row(relation.to_row()) == relation


@given(st.integers(1, 86_400))
def test_a_heartbeat_is_early_but_never_twice_as_frequent_as_asked(seconds: int) -> None:
    interval = timedelta(seconds=seconds)
    assert interval / 2 <= heartbeat_period(interval) <= interval * 0.9
