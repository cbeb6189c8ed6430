from dataclasses import replace

import pytest

from gateway.domain.timeline import rfc3339
from gateway.testing.judge import Evening
from gateway.testing.offline import Answer
from gateway.testing.proofs import (
    evidence,
    excess_recorded,
    fallback_recorded,
    liar_named,
    lives,
    recorded_once,
    sessions_once,
    trace,
)
from tests.unit.testing.evenings import (
    EVSE,
    at,
    changed,
    doubled,
    good,
    physics,
    with_notes,
    with_physics,
    without,
)

PROOFS = {
    "evidence": evidence,
    "trace": trace,
    "recorded_once": recorded_once,
    "sessions_once": sessions_once,
    "lives": lives,
    "fallback_recorded": fallback_recorded(6_000),
    "liar_named": liar_named,
    "excess_recorded": excess_recorded,
}


def failed(evening: Evening) -> list[str]:
    checks = [proof(evening) for proof in PROOFS.values()]
    assert [check.name for check in checks] == list(PROOFS)
    assert all(any(c.isdigit() for c in check.detail) for check in checks), "every check says its figures"
    return [check.name for check in checks if not check.ok]


def with_answer(**answers: Answer) -> Evening:
    return replace(good(), left=replace(good().left, **answers))


def test_a_gateway_that_recorded_everything_proves_everything() -> None:
    assert failed(good()) == []


@pytest.mark.parametrize(
    ("name", "evening"),
    [
        ("recorded_once", without("envelope.revised")),
        ("recorded_once", doubled("envelope.revised")),
        ("recorded_once", changed("envelope.revised", at=at(6))),
        ("sessions_once", without("session.started")),
        ("sessions_once", doubled("session.started")),
        ("sessions_once", without("session.ended")),
        ("sessions_once", doubled("session.ended")),
        ("sessions_once", changed("session.started", body={"started_at": rfc3339(at(200))})),
        ("sessions_once", changed("session.started", subject={"evse": "main/evse-2"})),
        ("lives", without("gateway.stopping")),
        ("lives", doubled("gateway.started")),
        ("fallback_recorded", without("source.lost")),
        ("fallback_recorded", doubled("source.lost")),
        ("fallback_recorded", without("envelope.state")),
        ("fallback_recorded", changed("source.lost", at=at(2_099))),
        ("fallback_recorded", changed("envelope.state", at=at(2_161))),
        ("fallback_recorded", with_notes(fresh_at=at(2_500))),
        ("fallback_recorded", with_notes(deadline=None)),
        ("liar_named", without("device.lying")),
        ("liar_named", changed("device.lying", at=at(2_000))),
        ("liar_named", with_notes(lie=None)),
        ("excess_recorded", without("compliance.interval")),
        ("trace", with_answer(traced=Answer(0, {"requests": ["q2"], "verdicts": [{}], "measurement": {}}, ""))),
        ("trace", with_answer(traced=Answer(0, {"requests": ["q1"], "verdicts": [], "measurement": {}}, ""))),
        ("trace", with_answer(traced=None)),
        ("evidence", with_answer(verified=Answer(3, {"ok": False, "size": 11, "problems": [{"code": "root 1"}]}, ""))),
        ("evidence", with_answer(verified=Answer(1, {}, "exit 1"))),
    ],
)
def test_each_proof_fails_alone_on_what_it_is_for(name: str, evening: Evening) -> None:
    assert failed(evening) == [name]


def test_a_second_station_that_is_called_a_liar_is_one_too_many() -> None:
    entries = [*good().left.log, replace(good().left.of("device.lying")[0], subject={"evse": "main/evse-2"})]
    assert failed(replace(good(), left=replace(good().left, log=entries))) == ["liar_named"]


def test_a_fallback_to_another_value_is_none() -> None:
    assert not fallback_recorded(7_000)(good()).ok


def test_an_excess_that_the_record_makes_small_is_not_recorded() -> None:
    window = good().left.of("compliance.interval", node="main")[0]
    small = {**window.body, "worst_w": 6_500}
    assert failed(changed("compliance.interval", body=small)) == ["excess_recorded"]
    unknown = {**window.body, "worst_w": None}
    assert failed(changed("compliance.interval", body=unknown)) == ["excess_recorded"]


def test_without_an_excess_there_is_none_to_record() -> None:
    assert "excess_recorded" in failed(with_physics(physics()))


def test_entries_are_found_by_type_and_subject() -> None:
    assert len(good().left.of("session.started", evse=EVSE)) == 1
    assert good().left.of("session.started", evse="main/evse-2") == []
