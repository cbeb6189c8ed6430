"""Frames of OCPP-J (OCPP-J 1.6 §4, OCPP 2.0.1 Part 4 §4): arrays around payloads. No I/O.

Parsing is total: whatever arrives becomes one of the frame classes or a :class:`BadFrame` that says
how to answer. Message ids are echoed byte for byte, also where a station counts in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from adapters.ocpp.wire import Version

MAX_FRAME_BYTES = 65_536
"""Largest message accepted, counted after inflation: no message of a station comes near it."""

MAX_ID_CHARS = 128
"""The specification says 36; somewhat longer ids are echoed, absurd ones are not."""

MAX_ERROR_TEXT = 255

UNREADABLE_ID = b'"-1"'
"""OCPP 2.0.1 Part 4 §4.2.3: the id of an answer to a message whose id cannot be read."""

_call_frame = msgspec.json.Decoder(tuple[int, msgspec.Raw, str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)
_id = msgspec.json.Decoder(str | int)
_integer = msgspec.json.Decoder(int)
_encode = msgspec.json.Encoder().encode


class ErrorCode(StrEnum):
    """Codes of CALLERROR in the spelling of 2.0.1; :func:`spelling` gives the version's own."""

    NOT_IMPLEMENTED = "NotImplemented"
    NOT_SUPPORTED = "NotSupported"
    INTERNAL = "InternalError"
    PROTOCOL = "ProtocolError"
    SECURITY = "SecurityError"
    FORMAT = "FormatViolation"
    PROPERTY = "PropertyConstraintViolation"
    OCCURRENCE = "OccurrenceConstraintViolation"
    TYPE = "TypeConstraintViolation"
    GENERIC = "GenericError"
    RPC = "RpcFrameworkError"
    MESSAGE_TYPE = "MessageTypeNotSupported"


_SPELLING_16 = {
    ErrorCode.FORMAT: "FormationViolation",
    ErrorCode.OCCURRENCE: "OccurenceConstraintViolation",
    ErrorCode.RPC: "ProtocolError",
    ErrorCode.MESSAGE_TYPE: "ProtocolError",
}


def spelling(code: ErrorCode, version: Version) -> str:
    """The word of ``version``: 1.6 writes two of them differently and lacks two."""
    return _SPELLING_16.get(code, code.value) if version is Version.V16 else code.value


class Call(msgspec.Struct, frozen=True, gc=False):
    """A request. ``raw_id`` is the id's JSON text as it came."""

    raw_id: bytes
    action: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class CallResult:
    """An answer."""

    id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class CallFault:
    """A CALLERROR; unknown codes are kept as they are."""

    id: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class BadFrame:
    """Not a frame. ``answer_id`` None: stay silent."""

    reason: str
    code: ErrorCode
    answer_id: bytes | None


Frame = Call | CallResult | CallFault | BadFrame


def parse(data: bytes, version: Version) -> Frame:
    """What a text message is."""
    return _usual_call(data) or _parse(data, version)


def _usual_call(data: bytes) -> Call | None:
    """Nearly all of what stations send, read in one go; None where anything is unusual."""
    try:
        kind, raw_id, action, raw_payload = _call_frame.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    name, payload = bytes(raw_id), bytes(raw_payload)
    usual = kind == 2 and action and payload.startswith(b"{") and payload.endswith(b"}") and _read_id(name) is not None
    return Call(name, action, payload) if usual else None


def _parse(data: bytes, version: Version) -> Frame:
    try:
        parts = [bytes(part) for part in _array.decode(data)]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _nameless("not a JSON array", ErrorCode.RPC, version)
    if len(parts) < 2:
        return _nameless("fewer than two elements", ErrorCode.RPC, version)
    kind, name = _read_int(parts[0]), _read_id(parts[1])
    if kind not in (2, 3, 4):
        answer = parts[1] if name is not None and version is not Version.V16 else None
        problem = _nameless("unknown message type", ErrorCode.MESSAGE_TYPE, version)
        return BadFrame(problem.reason, problem.code, answer) if answer is not None else problem
    if name is None:
        # An answer with an unreadable id answers nothing, and is never answered itself.
        bad = _nameless("unreadable message id", ErrorCode.RPC, version)
        return bad if kind == 2 else BadFrame(bad.reason, bad.code, None)
    if kind == 2:
        return _call(parts)
    return _answer(kind, name, parts)


def call(message_id: str, action: str, payload: bytes) -> str:
    """A CALL."""
    return b"".join((b"[2,", _encode(message_id), b",", _encode(action), b",", payload, b"]")).decode()


def result(raw_id: bytes, payload: bytes) -> str:
    """A CALLRESULT."""
    return b"".join((b"[3,", raw_id, b",", payload, b"]")).decode()


def fault(raw_id: bytes, code: ErrorCode, text: str, version: Version) -> str:
    """A CALLERROR; control characters of a peer's text do not survive."""
    clean = "".join(c if c.isprintable() else " " for c in text)[:MAX_ERROR_TEXT]
    return b"".join((b"[4,", raw_id, b",", _encode(spelling(code, version)), b",", _encode(clean), b",{}]")).decode()


def _nameless(reason: str, code: ErrorCode, version: Version) -> BadFrame:
    return BadFrame(reason, code, None if version is Version.V16 else UNREADABLE_ID)


def _call(parts: list[bytes]) -> Frame:
    raw_id = parts[1]
    action = _read_text(parts[2]) if len(parts) > 2 else None
    if not action:
        return BadFrame("a CALL without action", ErrorCode.RPC, raw_id)
    payload = parts[3].strip() if len(parts) > 3 else b"{}"
    if payload == b"null":
        payload = b"{}"
    if not payload.startswith(b"{"):
        return BadFrame("the payload is no object", ErrorCode.FORMAT, raw_id)
    return Call(raw_id, action, payload)


def _answer(kind: int, name: str, parts: list[bytes]) -> Frame:
    if kind == 3:
        payload = parts[2].strip() if len(parts) > 2 else b"{}"
        return CallResult(name, b"{}" if payload == b"null" else payload)
    code = _read_text(parts[2]) if len(parts) > 2 else None
    text = _read_text(parts[3]) if len(parts) > 3 else None
    return CallFault(name, code or "", text or "")


def _read_id(raw: bytes) -> str | None:
    try:
        name = _id.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    text = str(name)
    return text if 0 < len(text) <= MAX_ID_CHARS else None


def _read_text(raw: bytes) -> str | None:
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _read_int(raw: bytes) -> int | None:
    try:
        return _integer.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
