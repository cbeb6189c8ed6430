"""What every HTTP adapter needs from ASGI: who is there, a bounded body, bounded JSON. No routes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gateway.domain.errors import LocalError, MalformedMessage, PeerUnreachable
from gateway.kit.peer import EXTENSION, PeerInfo

MAX_BODY_BYTES = 256 * 1024
"""Default for one message of a grid protocol: 1,000 blocks with room to spare."""

MAX_DISCARDED_BYTES = 1024 * 1024
"""Of a body that is too large, read and forgotten so that its sender gets to read the refusal."""

MAX_JSON_DEPTH = 32
"""Nesting no grid or charging message comes near; Python's own decoder would recurse to its end."""

MAX_NUMBER_LENGTH = 64
"""Characters of one JSON number; power, energy and ids fit in a third of it."""

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# A string that never ends takes the rest: looking for its end again from every quotation mark
# inside would cost the square of the body.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class BodyTooLarge(MalformedMessage):
    """More bytes than the route allows; answer 413 and close the connection."""

    code = "peer.body-too-large"


def peer_from(scope: Mapping[str, Any]) -> PeerInfo:
    """Who is at the other end of this request, as our own server put it there.

    Raises:
        LocalError: the application runs behind a server that proves no identity.
    """
    found = scope.get("extensions", {}).get(EXTENSION)
    if not isinstance(found, PeerInfo):
        raise LocalError("this application was mounted on a server that does not say who its peers are")
    return found


async def read_body(scope: Mapping[str, Any], receive: Receive, *, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body, never holding more than ``limit`` bytes and one chunk of it.

    Raises:
        BodyTooLarge: announced or sent more.
        PeerUnreachable: the client left before the end.
    """
    announced = _content_length(scope)
    if announced is not None and announced > limit:
        await _discard(scope, receive)
        raise BodyTooLarge(f"a body of {announced} bytes is announced; at most {limit} are taken")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise PeerUnreachable("the client left before its body ended")
        body += message.get("body", b"")
        has_more = bool(message.get("more_body", False))
        if len(body) > limit:
            if has_more:
                await _discard(scope, receive)
            raise BodyTooLarge(f"a body of more than {limit} bytes was sent")
        if not has_more:
            return bytes(body)


async def _discard(scope: Mapping[str, Any], receive: Receive) -> None:
    """Read what is still coming, up to a bound: closing before would reset the connection.

    A client that waits to be asked (``Expect: 100-continue``) is not asked.
    """
    if any(name == b"expect" for name, _ in scope.get("headers", ())):
        return
    count = 0
    while count <= MAX_DISCARDED_BYTES:
        message = await receive()
        count += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def parse_json(body: bytes, *, max_depth: int = MAX_JSON_DEPTH) -> Any:
    """Decode strictly: UTF-8, no key twice in an object, finite numbers, bounded depth.

    Raises:
        MalformedMessage: says which rule was broken; ``body`` is not quoted.
    """
    if json_depth(body) > max_depth:
        raise MalformedMessage(f"JSON nested deeper than {max_depth}", code="peer.json-depth")
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as problem:
        raise MalformedMessage("the body is not UTF-8", code="peer.json") from problem
    except json.JSONDecodeError as problem:
        raise MalformedMessage(
            f"no JSON: {problem.msg} at line {problem.lineno}, column {problem.colno}", code="peer.json"
        ) from problem


def json_depth(body: bytes) -> int:
    """Deepest nesting of arrays and objects, found without decoding.

    Of a text that is no JSON it is an upper bound of what a decoder would reach.
    """
    depth = deepest = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NO_BRACKETS):
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


async def respond(
    send: Send,
    status: int,
    body: bytes = b"",
    *,
    content_type: str = "application/json",
    headers: Sequence[tuple[bytes, bytes]] = (),
    is_last: bool = False,
) -> None:
    """Send one complete answer. ``is_last`` ends the connection, as after :class:`BodyTooLarge`."""
    fields = [*headers]
    if status != 204:
        fields.append((b"content-length", str(len(body)).encode()))
    if body:
        fields.append((b"content-type", content_type.encode()))
    if is_last:
        fields.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, document: Any, *, is_last: bool = False) -> None:
    """Send ``document`` as compact JSON."""
    body = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    await respond(send, status, body, is_last=is_last)


def _content_length(scope: Mapping[str, Any]) -> int | None:
    for name, value in scope.get("headers", ()):
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedMessage("an object has the same key twice", code="peer.json-duplicate-key")
    return found


def _integer(text: str) -> int:
    _check_length(text)
    return int(text)


def _number(text: str) -> float:
    _check_length(text)
    value = float(text)
    if not math.isfinite(value):
        raise MalformedMessage("a number is too large", code="peer.json-number")
    return value


def _check_length(text: str) -> None:
    if len(text) > MAX_NUMBER_LENGTH:
        raise MalformedMessage(f"a number has more than {MAX_NUMBER_LENGTH} characters", code="peer.json-number")


def _refuse_constant(name: str) -> Any:
    raise MalformedMessage(f"{name} is no JSON number", code="peer.json-number")
