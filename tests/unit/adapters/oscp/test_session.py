"""The table of a relation, exhaustively, and its row."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.oscp.session import (
    TRANSITIONS,
    Offer,
    Relation,
    State,
    Swap,
    Trigger,
    abandon_offer,
    abandon_swap,
    advance,
    answer_offer,
    begin_offer,
    begin_swap,
    ended,
    finish_swap,
    heartbeat_period,
    take_offer,
)
from gateway.domain.errors import IllegalTransition

INSTANTS = st.datetimes(min_value=datetime(2020, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  the strategy adds UTC
OFFER = Offer("o1", "POST", "b-digest", "b-sealed", datetime(2026, 3, 1, tzinfo=UTC))
NEWER = ("offer", "answered", "shaking", "shaking_until", "shakes", "acknowledging_until")
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


def test_an_offer_counts_once_it_is_answered_and_brings_both_tokens() -> None:
    offered = begin_offer(Relation(), OFFER)
    assert (offered.state, offered.token_in_sha256) == (State.REGISTERING, "")
    answered = answer_offer(offered, token_out_sealed="c", base_url="https://x")
    assert (answered.state, answered.token_in_sha256, answered.answered) == (State.REGISTERED, "b-digest", "o1")
    assert answered.offer is None


def test_an_offer_that_is_given_up_leaves_what_was_before() -> None:
    assert abandon_offer(begin_offer(Relation(), OFFER)) == Relation()
    online = Relation(State.ONLINE, "c", "b", "https://x")
    assert abandon_offer(begin_offer(online, OFFER)) == online


def test_a_changed_token_counts_once_the_peer_knows_it_and_the_state_stays() -> None:
    online = Relation(State.ONLINE, "c", "b", "https://x")
    offered = begin_offer(online, replace(OFFER, method="PUT"))
    assert offered.token_in_sha256 == "c"
    assert take_offer(offered) == replace(online, token_in_sha256="b-digest")
    assert abandon_offer(offered) == online


@pytest.mark.parametrize("state", [State.UNREGISTERED, State.REGISTERING, State.ENDED])
def test_what_does_not_exist_cannot_be_changed(state: State) -> None:
    with pytest.raises(IllegalTransition):
        begin_offer(Relation(state), replace(OFFER, method="PUT"))


def test_of_two_registrations_that_cross_either_may_fail_and_the_other_goes_on() -> None:
    both = begin_offer(begin_swap(Relation(), swap=SWAP, token_out_sealed="b", base_url="https://x"), OFFER)
    ours = answer_offer(abandon_swap(both), token_out_sealed="c", base_url="https://x")
    assert (ours.state, ours.token_in_sha256) == (State.REGISTERED, "b-digest")
    theirs = finish_swap(abandon_offer(both), "a")
    assert (theirs.state, theirs.token_in_sha256) == (State.REGISTERED, "c-digest")


def test_a_row_of_an_earlier_version_is_read() -> None:
    row = {k: v for k, v in json.loads(Relation(State.ONLINE, "c").to_row()).items() if k not in NEWER}
    assert Relation.from_row(json.dumps(row).encode()) == Relation(State.ONLINE, "c")


def test_the_end_forgets_everything_but_the_void_token() -> None:
    relation = Relation(State.ONLINE, "c", "b", "https://x", "a", None, "", 30, ("CONTINUOUS",))
    assert ended(relation) == Relation(State.ENDED, void_sha256="a")


@given(
    st.builds(
        Relation,
        state=st.sampled_from(State),
        token_in_sha256=st.text(),
        base_url=st.text(),
        swap=st.none() | st.builds(Swap, st.text(), st.text(), st.text(), st.booleans(), st.none() | INSTANTS),
        offer=st.none() | st.builds(Offer, st.text(), st.sampled_from(["POST", "PUT"]), st.text(), st.text(), INSTANTS),
        shaking=st.text(),
        shaking_until=st.none() | INSTANTS,
        shakes=st.integers(0),
        acknowledging_until=st.none() | INSTANTS,
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
