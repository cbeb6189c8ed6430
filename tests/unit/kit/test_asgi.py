"""Bounded bodies and strict JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import LocalError, MalformedMessage, PeerUnreachable
from gateway.kit.asgi import (
    MAX_DISCARDED_BYTES,
    MAX_JSON_DEPTH,
    MAX_NUMBER_LENGTH,
    BodyTooLarge,
    json_depth,
    parse_json,
    peer_from,
    read_body,
    respond,
    respond_json,
)
from gateway.kit.peer import EXTENSION, PeerInfo

pytestmark = pytest.mark.anyio

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Client:
    """Sends a body in parts; ``taken`` counts how many were asked for."""

    def __init__(self, *parts: bytes, leaves: bool = False) -> None:
        self.parts, self.leaves, self.taken = parts, leaves, 0

    async def __call__(self) -> Mapping[str, Any]:
        self.taken += 1
        if self.taken > len(self.parts):
            return {"type": "http.disconnect"}
        has_more = self.leaves or self.taken < len(self.parts)
        return {"type": "http.request", "body": self.parts[self.taken - 1], "more_body": has_more}


async def test_a_body_arrives_whole_however_it_was_cut() -> None:
    assert await read_body({}, Client(b"ab", b"", b"c"), limit=3) == b"abc"


async def test_a_body_above_the_limit_is_refused_and_its_rest_forgotten() -> None:
    client = Client(b"ab", b"cd", b"ef")
    with pytest.raises(BodyTooLarge):
        await read_body({}, client, limit=3)
    assert client.taken == 3


async def test_a_body_without_end_is_not_read_to_its_end() -> None:
    client = Client(*[b"a" * 65536] * 1000)
    with pytest.raises(BodyTooLarge):
        await read_body({}, client, limit=3)
    assert client.taken == MAX_DISCARDED_BYTES // 65536 + 2


async def test_an_announced_length_above_the_limit_is_refused() -> None:
    with pytest.raises(BodyTooLarge, match="announced"):
        await read_body({"headers": [(b"content-length", b"4")]}, Client(b""), limit=3)


async def test_a_client_that_waits_to_be_asked_for_a_body_too_large_is_not_asked() -> None:
    client = Client(b"")
    with pytest.raises(BodyTooLarge):
        await read_body({"headers": [(b"expect", b"100-continue"), (b"content-length", b"4")]}, client, limit=3)
    assert client.taken == 0


async def test_a_client_that_leaves_is_no_shorter_body() -> None:
    with pytest.raises(PeerUnreachable):
        await read_body({}, Client(b"ab", leaves=True))


def test_the_peer_is_what_our_server_put_there() -> None:
    peer = PeerInfo("grid", "127.0.0.1")
    assert peer_from({"extensions": {EXTENSION: peer}}) is peer


@pytest.mark.parametrize("scope", [{}, {"extensions": {}}, {"extensions": {EXTENSION: {"listener": "grid"}}}])
def test_a_server_that_does_not_name_the_peer_is_our_mistake(scope: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        peer_from(scope)


@given(JSON)
def test_what_a_standard_encoder_writes_is_read_back(document: Any) -> None:
    assert parse_json(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"a":1,"a":2}', "peer.json-duplicate-key"),
        (b'[{"a":{"b":1,"\\u0062":2}}]', "peer.json-duplicate-key"),
        (b"NaN", "peer.json-number"),
        (b"[-Infinity]", "peer.json-number"),
        (b"1e999", "peer.json-number"),
        (b"1" * (MAX_NUMBER_LENGTH + 1), "peer.json-number"),
        (b"[" * 33 + b"]" * 33, "peer.json-depth"),
        (b"[" * 200_000, "peer.json-depth"),
        (b"", "peer.json"),
        (b'{"a":1} x', "peer.json"),
        (b"\xff", "peer.json"),
        (b'"\xed\xa0\x80"', "peer.json"),
    ],
)
def test_json_that_could_mean_two_things_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_json(body)
    assert caught.value.code == code


def test_the_allowed_depth_is_taken() -> None:
    parse_json(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH)


def test_brackets_in_text_are_no_depth() -> None:
    assert json_depth(b'["[[[\\"[[["]') == 1


@given(JSON)
def test_the_depth_found_by_scanning_is_the_real_one(document: Any) -> None:
    def real(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + max(map(real, value.values()), default=0)
        return 1 + max(map(real, value), default=0) if isinstance(value, list) else 0

    assert json_depth(json.dumps(document, ensure_ascii=False).encode()) == real(document)


@given(st.binary(max_size=200) | st.text('[]{}":,\\1a', max_size=200).map(str.encode))
def test_any_bytes_are_json_or_the_peers_mistake(body: bytes) -> None:
    try:
        parse_json(body)
    except MalformedMessage:
        pass


def test_a_hostile_text_is_scanned_in_linear_time() -> None:
    """Were it quadratic, this would take hours."""
    assert json_depth(b'"' + b'\\"' * 2_000_000) == 0


async def test_an_answer_has_length_and_type_and_may_be_the_last() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await respond_json(send, 413, {"message": "too large"}, is_last=True)
    fields = dict(sent[0]["headers"])
    assert fields == {b"content-length": b"23", b"content-type": b"application/json", b"connection": b"close"}
    assert sent[1]["body"] == b'{"message":"too large"}'


async def test_no_content_has_neither_length_nor_type() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await respond(send, 204)
    assert sent[0]["headers"] == []
