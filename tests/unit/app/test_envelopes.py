"""Envelopes through their lifecycle, driven by events and stored deadlines."""

from __future__ import annotations

from gateway.domain import events as ev
from gateway.domain.envelope import BindingPolicy, BlockKind, LossPolicy, RevisionMode
from gateway.domain.lifecycle import State
from tests.unit.app.builders import DSO, MAIN, Driver, at, forecast, heartbeat


def states(driver: Driver) -> list[str]:
    return [e.body["to"] for e in driver.evidence if e.type == "envelope.state"]


def in_force(driver: Driver) -> list[int]:
    envelope = driver.envelope()
    return [v.value for v in (envelope.fallen or envelope.held)]


def test_a_block_that_covers_now_is_active_at_once() -> None:
    driver = Driver()
    driver.step(heartbeat(60), forecast((0, 60, 30_000)))
    assert states(driver) == ["RECEIVED", "ACTIVE"]
    assert in_force(driver) == [30_000]


def test_a_block_ahead_waits_for_its_start() -> None:
    driver = Driver()
    driver.step(heartbeat(60), forecast((10, 60, 30_000)))
    driver.run_to(9.99)
    assert driver.envelope().state is State.PENDING
    driver.run_to(10)
    assert driver.envelope().state is State.ACTIVE


def test_a_message_all_in_the_past_expires_at_once() -> None:
    driver = Driver()
    driver.step(heartbeat(60), forecast((-20, -10, 30_000)))
    assert states(driver) == ["RECEIVED", "EXPIRED"]


def test_the_worked_example_of_a_lost_source_falls_back_and_needs_a_fresh_forecast() -> None:
    """Allocator sheet §16.5: heartbeat alone does not end a fallback."""
    driver = Driver(policy=BindingPolicy(recover_s=60))
    driver.step(
        heartbeat(20), forecast((0, 60, 17_000)), forecast((0, 120, 10_000), kind=BlockKind.FALLBACK, ident="f")
    )
    driver.run_to(20)
    assert driver.envelope().state is State.ACTIVE_FALLBACK
    assert in_force(driver) == [10_000]
    driver.step(heartbeat(90), now=at(30))
    driver.run_to(39)
    assert driver.envelope().state is State.ACTIVE_FALLBACK
    driver.step(forecast((40, 60, 17_000), ident="q2"), now=at(40))
    assert driver.envelope().state is State.ACTIVE
    assert in_force(driver) == [17_000]


def test_recovery_waits_until_the_source_has_lived_for_recover_s() -> None:
    driver = Driver(policy=BindingPolicy(recover_s=60))
    driver.step(heartbeat(10), forecast((0, 60, 17_000)))
    driver.run_to(20)
    driver.step(heartbeat(90), forecast((20, 60, 15_000), ident="q2"), now=at(20))
    assert driver.envelope().state is State.ACTIVE_FALLBACK
    driver.run_to(21)
    assert driver.envelope().state is State.ACTIVE


def test_a_gap_holds_the_last_value_for_its_grace_and_then_falls_back() -> None:
    driver = Driver(policy=BindingPolicy(gap_grace_s=60))
    driver.step(heartbeat(600), forecast((0, 10, 17_000)), forecast((0, 99, 9_000), kind=BlockKind.FALLBACK, ident="f"))
    driver.run_to(10.5)
    assert driver.envelope().state is State.FALLBACK_ELIGIBLE
    assert in_force(driver) == [17_000]
    driver.run_to(11)
    assert driver.envelope().state is State.ACTIVE_FALLBACK
    assert in_force(driver) == [9_000]


def test_a_fallback_never_loosens_by_the_passing_of_time() -> None:
    driver = Driver()
    fallback = forecast((0, 20, 9_000), (20, 40, 30_000), (40, 50, 5_000), kind=BlockKind.FALLBACK, ident="f")
    driver.step(heartbeat(10), forecast((0, 60, 17_000)), fallback)
    driver.run_to(25)
    assert in_force(driver) == [9_000]
    driver.run_to(45)
    assert in_force(driver) == [5_000]


def test_when_the_fallback_ends_a_stale_policy_holds_no_looser() -> None:
    driver = Driver()
    driver.step(heartbeat(10), forecast((0, 60, 17_000)), forecast((0, 30, 9_000), kind=BlockKind.FALLBACK, ident="f"))
    driver.run_to(31)
    envelope = driver.envelope()
    assert (envelope.state, envelope.stale) == (State.EXPIRED, True)
    driver.connect(1)
    driver.plug(1)
    driver.run_to(200)
    assert driver.target(1) <= 9_000


def test_without_a_fallback_the_tighter_of_last_value_and_half_the_static_limit_holds() -> None:
    driver = Driver()
    driver.step(heartbeat(10), forecast((0, 60, 50_000)))
    driver.run_to(11)
    assert in_force(driver) == [30_000]


def test_exhaust_schedule_keeps_the_held_blocks_of_a_silent_source() -> None:
    driver = Driver(policy=BindingPolicy(on_loss=LossPolicy.EXHAUST_SCHEDULE))
    driver.step(heartbeat(10), forecast((0, 30, 17_000)))
    driver.run_to(29)
    assert driver.envelope().state is State.ACTIVE
    driver.run_to(30)
    assert driver.envelope().state is State.ACTIVE_FALLBACK


def test_an_envelope_that_is_not_demanded_simply_ends() -> None:
    driver = Driver(policy=BindingPolicy(demands_envelope=False))
    driver.step(heartbeat(600), forecast((0, 10, 17_000)))
    driver.run_to(11)
    assert driver.envelope().state is State.EXPIRED
    assert not driver.envelope().stale


def test_an_overlay_leaves_the_old_blocks_outside_of_what_it_covers() -> None:
    driver = Driver()
    driver.step(heartbeat(600), forecast((0, 60, 30_000)))
    driver.step(forecast((10, 20, 12_000), ident="q2"))
    spans = [(b.start, b.end, b.value) for b in driver.envelope().primary]
    assert spans == [(at(0), at(10), 30_000), (at(10), at(20), 12_000), (at(20), at(60), 30_000)]


def test_a_whole_replacement_drops_what_it_does_not_repeat() -> None:
    driver = Driver()
    driver.step(heartbeat(600), forecast((0, 60, 30_000)))
    driver.step(forecast((0, 20, 12_000), ident="q2", mode=RevisionMode.REPLACE))
    assert [b.value for b in driver.envelope().primary] == [12_000]


def test_overlapping_blocks_of_one_message_keep_the_tighter_and_are_flagged() -> None:
    driver = Driver()
    driver.step(heartbeat(600), forecast((0, 60, 30_000), (10, 20, 12_000)))
    assert driver.envelope().flags == ("OVERLAPPING_BLOCKS",)
    assert [b.value for b in driver.envelope().primary] == [30_000, 12_000, 30_000]


def test_zero_means_nothing_allowed_and_is_not_taken_for_no_statement() -> None:
    driver = Driver(tree=Driver().tree)
    driver.step(heartbeat(600), forecast((0, 60, 0)))
    driver.connect(1)
    driver.plug(1)
    assert driver.target(1) == 0
    assert driver.state.grants["main/garage/evse-1"].share.confirmed.floor_w == 0


def test_an_ended_relation_keeps_the_fallback_until_an_operator_releases_it() -> None:
    driver = Driver()
    driver.step(heartbeat(600), forecast((0, 60, 30_000)), forecast((0, 99, 9_000), kind=BlockKind.FALLBACK, ident="f"))
    driver.step(ev.SourceEnded(DSO, "relation_ended"))
    assert sorted(e.state.value for e in driver.state.envelopes.values()) == ["EXPIRED", "WITHDRAWN"]
    driver.connect(1)
    driver.plug(1)
    assert driver.target(1) <= 9_000


def test_a_revision_to_an_expired_envelope_opens_a_new_one() -> None:
    driver = Driver(policy=BindingPolicy(demands_envelope=False))
    driver.step(heartbeat(600), forecast((0, 10, 17_000)))
    driver.run_to(11)
    driver.step(forecast((12, 20, 17_000), ident="q2"), now=at(12))
    assert sorted(e.state.value for e in driver.state.envelopes.values()) == ["ACTIVE", "EXPIRED"]


def test_every_transition_is_sealed_with_the_message_behind_it() -> None:
    driver = Driver()
    driver.step(heartbeat(60), forecast((0, 60, 30_000), ident="q-77"))
    revised = next(e for e in driver.evidence if e.type == "envelope.revised")
    active = next(e for e in driver.evidence if e.type == "envelope.state" and e.body["to"] == "ACTIVE")
    assert revised.subject["request_id"] == "q-77"
    assert revised.id in active.cause
    assert active.subject["node"] == MAIN


def test_what_was_said_before_a_second_silence_is_not_fresh() -> None:
    """The source must speak once more, a heartbeat does not do."""
    driver = Driver(policy=BindingPolicy(recover_s=60))
    driver.step(heartbeat(10), forecast((0, 120, 40_000)), forecast((0, 120, 20_000), kind=BlockKind.FALLBACK))
    driver.run_to(11)
    driver.step(heartbeat(11.5), forecast((0, 120, 40_000), ident="anew"))
    driver.run_to(12)
    driver.step(heartbeat(100))
    driver.run_to(20)
    assert driver.envelope().state is State.ACTIVE_FALLBACK
    driver.step(forecast((0, 120, 40_000), ident="again"))
    driver.run_to(22)
    assert driver.envelope().state is State.ACTIVE
