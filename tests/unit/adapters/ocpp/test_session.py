"""One connection's RPC: one CALL of ours at a time, the station's own at any time."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ocpp.diagnosis import diagnose
from adapters.ocpp.session import (
    ANSWER_DEADLINE_S,
    MAX_UNANSWERED,
    MAX_WAITING,
    Ended,
    Fate,
    Late,
    Received,
    Refused,
    Request,
    Send,
    Session,
)
from adapters.ocpp.wire import Version


def a_session(version: Version = Version.V16) -> Session:
    ids = itertools.count(1)
    return Session(
        version,
        supported=frozenset({"Heartbeat", "BootNotification"}),
        new_id=lambda: f"id-{next(ids)}",
        diagnose=diagnose,
    )


def a_request(tag: str, priority: int = 1, key: str = "", *, weighty: bool = True) -> Request:
    return Request(tag, "SetChargingProfile", b"{}", priority, key, weighty)


def sent(outputs: list) -> list:
    return [json.loads(o.text) for o in outputs if isinstance(o, Send)]


def ended(outputs: list) -> list[tuple[str, Fate]]:
    return [(o.request.tag, o.fate) for o in outputs if isinstance(o, Ended)]


def test_only_one_call_is_outstanding_and_the_next_leaves_with_the_answer():
    session = a_session()
    assert len(sent(session.enqueue(a_request("a"), 0))) == 1
    assert session.enqueue(a_request("b"), 0) == []
    outputs = session.receive('[3,"id-1",{"status":"Accepted"}]', 1.5)
    assert ended(outputs) == [("a", Fate.ANSWERED)]
    assert sent(outputs)[0][1] == "id-2"
    assert outputs[0].latency_s == 1.5


def test_a_tightening_limit_goes_before_all_that_wait():
    session = a_session()
    for tag, priority in (("first", 2), ("later", 2), ("raise", 1), ("cut", 0)):
        session.enqueue(a_request(tag, priority), 0)
    order = ["first"]
    for number in range(1, 4):
        outputs = session.receive(f'[3,"id-{number}",{{}}]', 0)
        order.append(outputs[0].request.tag)
    assert order == ["first", "first", "cut", "raise"]


def test_a_newer_call_with_the_same_key_replaces_the_waiting_one():
    session = a_session()
    session.enqueue(a_request("busy"), 0)
    session.enqueue(a_request("old", key="evse|share"), 0)
    assert ended(session.enqueue(a_request("new", key="evse|share"), 0)) == [("old", Fate.SUPERSEDED)]
    assert session.waiting == 1


def test_what_was_sent_is_not_replaced():
    session = a_session()
    session.enqueue(a_request("old", key="k"), 0)
    assert ended(session.enqueue(a_request("new", key="k"), 0)) == []


def test_thirty_silent_seconds_end_a_call_exactly_once():
    session = a_session()
    session.enqueue(a_request("a"), 10)
    assert session.next_deadline == 10 + ANSWER_DEADLINE_S
    assert session.tick(39.9) == []
    assert ended(session.tick(40)) == [("a", Fate.TIMEOUT)]
    assert session.tick(100) == []
    assert session.next_deadline is None


def test_a_late_answer_is_told_and_never_applied():
    session = a_session()
    session.enqueue(a_request("a"), 0)
    session.tick(30)
    outputs = session.receive('[3,"id-1",{"status":"Accepted"}]', 33)
    assert outputs == [Late(a_request("a"), 33)]
    assert session.receive('[3,"id-1",{}]', 34) == [Refused("an answer to nothing", "")]


def test_an_answer_after_an_unanswered_call_is_out_of_order_until_that_one_is_answered():
    session = a_session()
    session.enqueue(a_request("a"), 0)
    session.tick(30)
    session.enqueue(a_request("b"), 30)
    assert [o.ordered for o in session.receive('[3,"id-2",{}]', 31)] == [False]
    session.receive('[3,"id-1",{}]', 32)
    session.enqueue(a_request("c"), 33)
    assert [o.ordered for o in session.receive('[3,"id-3",{}]', 34)] == [True]


def test_unanswered_housekeeping_does_not_disturb_the_order_of_limits():
    session = a_session()
    session.enqueue(a_request("read", weighty=False), 0)
    session.tick(30)
    session.enqueue(a_request("limit"), 30)
    assert [o.ordered for o in session.receive('[3,"id-2",{}]', 31)] == [True]


def test_forgotten_timeouts_keep_the_order_uncertain():
    session = a_session()
    for index in range(MAX_UNANSWERED + 1):
        session.enqueue(a_request(str(index)), index * 30)
        session.tick(index * 30 + 30)
    for index in range(MAX_UNANSWERED + 1):
        session.receive(f'[3,"id-{index + 1}",{{}}]', 9_000)
    session.enqueue(a_request("last"), 9_000)
    assert [o.ordered for o in session.receive(f'[3,"id-{MAX_UNANSWERED + 2}",{{}}]', 9_001)] == [False]


def test_a_disconnection_ends_everything_pending_the_sent_one_first():
    session = a_session()
    for tag in "abc":
        session.enqueue(a_request(tag), 0)
    assert [(o.request.tag, o.fate, o.detail) for o in session.close()] == [
        ("a", Fate.DISCONNECTED, "sent"),
        ("b", Fate.DISCONNECTED, "never sent"),
        ("c", Fate.DISCONNECTED, "never sent"),
    ]
    assert ended(session.enqueue(a_request("d"), 1)) == [("d", Fate.DISCONNECTED)]


def test_the_queue_is_bounded():
    session = a_session()
    session.enqueue(a_request("busy"), 0)
    for index in range(MAX_WAITING):
        session.enqueue(a_request(str(index)), 0)
    assert ended(session.enqueue(a_request("more"), 0)) == [("more", Fate.OVERFLOW)]


def test_a_call_of_the_station_is_handed_out_while_ours_is_outstanding():
    session = a_session()
    session.enqueue(a_request("a"), 0)
    (call,) = session.receive('[2,17,"Heartbeat",{}]', 1)
    assert isinstance(call, Received)
    assert session.reply(call.raw_id, b'{"currentTime":"t"}').text == '[3,17,{"currentTime":"t"}]'


@pytest.mark.parametrize(
    ("version", "text", "answer"),
    [
        (Version.V16, '[2,"a","Dance",{}]', "NotImplemented"),
        (Version.V16, '[2,"a","Reset",{"type":"Soft"}]', "NotSupported"),
        (Version.V201, '[2,"a","Heartbeat",{}]', "SecurityError"),
        (Version.V16, '[2,"a","BootNotification",{"chargePointModel":1}]', "ProtocolError"),
        (Version.V201, '[2,"a","BootNotification",{}]', "OccurrenceConstraintViolation"),
    ],
)
def test_a_call_that_cannot_be_taken_is_refused_with_the_right_code(version: Version, text: str, answer: str):
    outputs = a_session(version).receive(text, 0)
    assert sent(outputs)[0][:3] == [4, "a", answer]


def test_after_the_boot_a_201_station_may_say_everything():
    session = a_session(Version.V201)
    session.boot_accepted = True
    assert isinstance(session.receive('[2,"a","Heartbeat",{}]', 0)[0], Received)


def test_held_calls_leave_at_release():
    session = a_session()
    session.hold()
    assert session.enqueue(a_request("a"), 0) == []
    assert len(sent(session.release(1))) == 1


@given(st.lists(st.text(max_size=60) | st.binary(max_size=60), max_size=10), st.sampled_from(Version))
def test_no_text_makes_a_session_raise(texts: list[str | bytes], version: Version):
    session = a_session(version)
    for text in texts:
        session.receive(text, 0)


@given(st.data())
def test_every_call_ends_exactly_once_whatever_happens(data: st.DataObject):
    session, at, fates = a_session(), 0.0, []
    count = data.draw(st.integers(1, 12))
    for index in range(count):
        at += data.draw(st.floats(0, 40))
        key = data.draw(st.sampled_from(["", "x", "y"]))
        outputs = session.tick(at) + session.enqueue(a_request(str(index), data.draw(st.integers(0, 2)), key), at)
        if data.draw(st.booleans()):
            outputs += session.receive(f'[3,"id-{data.draw(st.integers(1, 12))}",{{}}]', at)
        fates += ended(outputs)
    fates += ended(session.close())
    assert sorted(tag for tag, _ in fates) == sorted(str(index) for index in range(count))
