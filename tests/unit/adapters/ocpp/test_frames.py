"""OCPP-J framing: every fault of a frame has one answer per version."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ocpp.wire import Version, frames
from adapters.ocpp.wire.frames import BadFrame, Call, CallFault, CallResult, ErrorCode

V16, V201 = Version.V16, Version.V201

FAULTS = [
    ("no json", V16, None, ErrorCode.RPC),
    ("no json", V201, b'"-1"', ErrorCode.RPC),
    ("{}", V16, None, ErrorCode.RPC),
    ("{}", V201, b'"-1"', ErrorCode.RPC),
    ("[]", V16, None, ErrorCode.RPC),
    ("[]", V201, b'"-1"', ErrorCode.RPC),
    ('[9,"a","X",{}]', V16, None, ErrorCode.MESSAGE_TYPE),
    ('[9,"a","X",{}]', V201, b'"a"', ErrorCode.MESSAGE_TYPE),
    ('["2","a","X",{}]', V201, b'"a"', ErrorCode.MESSAGE_TYPE),
    ('[2,null,"Heartbeat",{}]', V16, None, ErrorCode.RPC),
    ('[2,null,"Heartbeat",{}]', V201, b'"-1"', ErrorCode.RPC),
    ('[2,{"a":1},"Heartbeat",{}]', V201, b'"-1"', ErrorCode.RPC),
    ('[2,"","Heartbeat",{}]', V201, b'"-1"', ErrorCode.RPC),
    ('[2,"a"]', V16, b'"a"', ErrorCode.RPC),
    ('[2,"a",7,{}]', V201, b'"a"', ErrorCode.RPC),
    ('[2,"a","Heartbeat",[]]', V16, b'"a"', ErrorCode.FORMAT),
    ('[2,"a","Heartbeat","x"]', V201, b'"a"', ErrorCode.FORMAT),
    ("[3,null,{}]", V201, None, ErrorCode.RPC),
    ("[4,[],{}]", V201, None, ErrorCode.RPC),
    ("[" * 60_000, V16, None, ErrorCode.RPC),
    ("[" * 60_000, V201, b'"-1"', ErrorCode.RPC),
]


@pytest.mark.parametrize(("text", "version", "answer_id", "code"), FAULTS)
def test_every_broken_frame_has_its_answer_or_silence(
    text: str, version: Version, answer_id: bytes | None, code: ErrorCode
):
    frame = frames.parse(text.encode(), version)
    assert isinstance(frame, BadFrame)
    assert (frame.answer_id, frame.code) == (answer_id, code)


@pytest.mark.parametrize("payload", ["", ",null", ",{}", ", {} "])
def test_a_missing_or_null_payload_is_an_empty_object(payload: str):
    assert frames.parse(f'[2,"a","Heartbeat"{payload}]'.encode(), V16) == Call(b'"a"', "Heartbeat", b"{}")


@pytest.mark.parametrize("raw", ["17", '"\\u0041b"', '"x y"', "-3"])
def test_a_message_id_is_echoed_byte_for_byte(raw: str):
    call = frames.parse(f'[ 2 , {raw} ,"Heartbeat",{{}}]'.encode(), V16)
    assert isinstance(call, Call)
    assert frames.result(call.raw_id, b"{}") == f"[3,{raw},{{}}]"


@pytest.mark.parametrize(
    ("code", "v16", "v201"),
    [
        (ErrorCode.FORMAT, "FormationViolation", "FormatViolation"),
        (ErrorCode.OCCURRENCE, "OccurenceConstraintViolation", "OccurrenceConstraintViolation"),
        (ErrorCode.RPC, "ProtocolError", "RpcFrameworkError"),
        (ErrorCode.TYPE, "TypeConstraintViolation", "TypeConstraintViolation"),
    ],
)
def test_each_version_spells_error_codes_its_own_way(code: ErrorCode, v16: str, v201: str):
    assert (frames.spelling(code, V16), frames.spelling(code, V201)) == (v16, v201)


def test_an_error_text_is_short_and_has_no_control_characters():
    text = frames.fault(b'"a"', ErrorCode.GENERIC, "x\r\n\x1b[31m\ud800" + "y" * 400, V201)
    description = json.loads(text)[3]
    assert len(description) == 255
    assert description.isprintable()


def test_answers_are_told_from_calls():
    assert frames.parse(b'[3,"a",{"x":1}]', V16) == CallResult("a", b'{"x":1}')
    assert frames.parse(b'[4,"a","SomethingNew","why",{}]', V201) == CallFault("a", "SomethingNew", "why")
    assert frames.parse(b'[4,"a"]', V201) == CallFault("a", "", "")


@given(st.binary(max_size=200), st.sampled_from(Version))
def test_parsing_is_total(data: bytes, version: Version):
    frames.parse(data, version)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ),
    st.sampled_from(Version),
)
def test_whatever_json_comes_the_answer_is_a_frame(document: object, version: Version):
    frame = frames.parse(json.dumps(document).encode(), version)
    if isinstance(frame, BadFrame) and frame.answer_id is not None:
        answer = json.loads(frames.fault(frame.answer_id, frame.code, frame.reason, version))
        assert answer[0] == 4
        assert len(answer) == 5
