"""Signed notes and checkpoints: what other people's tools read, byte for byte."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import MalformedMessage
from gateway.domain.note import (
    Checkpoint,
    VerifierKey,
    is_key_name,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    parse_verifier_key,
    render_checkpoint,
    render_note,
    sign_checkpoint,
)

KEY = VerifierKey("example.org/gridgate/depot/1", bytes(range(32)))
ROOT = hashlib.sha256(b"root").digest()
HEAD = Checkpoint(KEY.name, 70_000, ROOT)


def toy_sign(message: bytes) -> bytes:
    return hashlib.sha512(KEY.public_key + message).digest()


def toy_verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    return hashlib.sha512(public_key + message).digest() == signature


SIGNED = sign_checkpoint(HEAD, KEY, toy_sign)


def test_a_checkpoint_is_origin_size_and_root_then_a_dash_name_and_key_id_with_signature() -> None:
    text, line = SIGNED.decode().split("\n\n")
    assert text.split("\n") == ["example.org/gridgate/depot/1", "70000", base64.b64encode(ROOT).decode()]
    dash, name, blob = line.removesuffix("\n").split(" ")
    assert (dash, name) == ("\u2014", KEY.name)
    key_id = hashlib.sha256(KEY.name.encode() + b"\x0a\x01" + KEY.public_key).digest()[:4]
    assert base64.b64decode(blob) == key_id + toy_sign(f"{text}\n".encode())


def test_a_verifier_key_is_name_id_and_type_with_key() -> None:
    name, key_id, data = str(KEY).split("+", 2)
    assert (name, key_id) == (KEY.name, KEY.key_id.hex())
    assert base64.b64decode(data) == b"\x01" + KEY.public_key


@given(st.binary(min_size=32, max_size=32))
def test_a_verifier_key_survives_being_written_down(public_key: bytes) -> None:
    key = VerifierKey("example.org/log", public_key)
    assert parse_verifier_key(str(key)) == key


@pytest.mark.parametrize(
    "text",
    ["", "name", "name+00000000+AAAA", str(KEY).replace("depot", "other"), str(KEY)[:-2], "a b+" + str(KEY)],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_verifier_key(text)


@given(st.integers(0, 2**63), st.binary(min_size=32, max_size=32))
def test_a_signed_checkpoint_opens_to_what_was_signed(size: int, root: bytes) -> None:
    head = Checkpoint(KEY.name, size, root)
    assert open_checkpoint(sign_checkpoint(head, KEY, toy_sign), KEY, toy_verify) == head


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_byte_of_a_signed_checkpoint_can_be_changed(place: int, flip: int) -> None:
    damaged = bytearray(SIGNED)
    damaged[place] ^= flip
    with pytest.raises(MalformedMessage):
        open_checkpoint(bytes(damaged), KEY, toy_verify)


def test_a_second_signature_of_somebody_else_does_no_harm() -> None:
    note = parse_note(SIGNED)
    other = VerifierKey("witness.example.org", bytes(32))
    cosigned = parse_note(sign_checkpoint(HEAD, other, toy_sign)).signatures
    both = type(note)(note.text, (*cosigned, *note.signatures))
    assert open_checkpoint(render_note(both), KEY, toy_verify) == HEAD


def test_a_signature_by_nobody_we_know_opens_nothing() -> None:
    with pytest.raises(MalformedMessage, match="0 signatures by other"):
        open_checkpoint(SIGNED, VerifierKey("other", KEY.public_key), toy_verify)


@pytest.mark.parametrize("size", ["", "-1", "01", "1.0", "١", "1" * 30])
def test_a_size_has_one_way_to_be_written(size: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_checkpoint(render_checkpoint(HEAD).replace("70000", size))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\x00"])
def test_a_name_with_white_space_or_plus_signs_nothing(name: str) -> None:
    assert not is_key_name(name)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_note_or_refused(data: bytes) -> None:
    try:
        note = parse_note(data)
    except MalformedMessage:
        return
    assert render_note(note) == data
