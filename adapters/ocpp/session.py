"""One OCPP-J connection as a state machine: texts and monotonic seconds in, outputs out. No I/O.

Both directions are independent: a station's CALL is handed out at once, also while one of ours
waits for its answer (OCPP-J 1.6 §4.1.1). Of ours at most one is outstanding; the others wait in
order of priority, and a newer one with the same key takes the place of a waiting one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from adapters.ocpp.wire import REQUESTS, Version, frames, request_decoder
from adapters.ocpp.wire.frames import ErrorCode

ANSWER_DEADLINE_S = 30.0
"""How long a station may take to answer (implementation defined in OCPP-J 1.6 §4.1.1)."""

MAX_WAITING = 256
"""Waiting CALLs: two layers of a hundred EVSEs and the housekeeping; more is a bug of ours."""

MAX_UNANSWERED = 64
"""Timed-out CALLs remembered for late answers. What falls out stays unanswered for ever."""

NEVER_SENT = "never sent"
"""Detail of a CALL that ended before it was written."""

Diagnosis = Callable[[Version, str, bytes], tuple[ErrorCode, str]]


class Fate(StrEnum):
    """How a CALL of ours ended."""

    ANSWERED = "answered"
    FAULT = "fault"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    SUPERSEDED = "superseded"
    OVERFLOW = "overflow"


@dataclass(frozen=True, slots=True)
class Request:
    """A CALL of ours. ``priority`` 0 goes first; an empty ``key`` is never replaced.

    ``weighty`` ones count for the order of answers; ``deadline_s`` is in real seconds.
    """

    tag: str
    action: str
    payload: bytes
    priority: int
    key: str = ""
    weighty: bool = False
    deadline_s: float = ANSWER_DEADLINE_S


class Send(msgspec.Struct, frozen=True):
    """A text to write."""

    text: str


class Received(msgspec.Struct, frozen=True):
    """A CALL of the station, decoded; it is owed an answer."""

    raw_id: bytes
    action: str
    payload: bytes
    message: msgspec.Struct


@dataclass(frozen=True, slots=True)
class Ended:
    """The fate of a CALL of ours, once per CALL. ``payload`` only where it was answered.

    ``ordered``: no earlier weighty CALL of this connection is still unanswered.
    """

    request: Request
    fate: Fate
    payload: bytes = b""
    detail: str = ""
    ordered: bool = True
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Late:
    """An answer after its deadline: told, never applied."""

    request: Request
    latency_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Something of the station's that was refused or ignored."""

    reason: str
    code: str
    action: str = ""


Output = Send | Received | Ended | Late | Refused


@dataclass(frozen=True, slots=True)
class _Open:
    id: str
    request: Request
    sent_at: float


class Session:
    """One connection's RPC layer.

    Args:
        supported: actions of a station that are handled; others get NotSupported.
        new_id: makes message ids that never repeat.
        diagnose: error code of a payload that a decoder refused.
    """

    def __init__(
        self, version: Version, *, supported: frozenset[str], new_id: Callable[[], str], diagnose: Diagnosis
    ) -> None:
        self.version = version
        self.boot_accepted = False
        self._supported = supported
        self._new_id = new_id
        self._diagnose = diagnose
        self._waiting: list[Request] = []
        self._open: _Open | None = None
        self._unanswered: OrderedDict[str, _Open] = OrderedDict()
        self._lost_weighty = False
        self._held = False
        self._closed = False

    @property
    def next_deadline(self) -> float | None:
        """Monotonic second at which :meth:`tick` has something to say."""
        return None if self._open is None else self._open.sent_at + self._open.request.deadline_s

    @property
    def waiting(self) -> int:
        """CALLs of ours that are not sent yet."""
        return len(self._waiting)

    def hold(self) -> None:
        """Queue CALLs of ours without sending them, until :meth:`release`."""
        self._held = True

    def release(self, at: float) -> list[Output]:
        """Send again."""
        self._held = False
        return self._pump(at)

    def receive(self, text: str | bytes, at: float) -> list[Output]:
        """Take one message. Total: a station cannot make it raise."""
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        frame = frames.parse(data, self.version)
        match frame:
            case frames.Call():
                return self._call(frame)
            case frames.CallResult(id=message_id, payload=payload):
                return self._answer(message_id, Fate.ANSWERED, payload, "", at)
            case frames.CallFault(id=message_id, code=code, text=detail):
                return self._answer(message_id, Fate.FAULT, b"", f"{code[:64]}: {detail[:255]}", at)
            case frames.BadFrame(reason=reason, code=code, answer_id=answer_id):
                refused: list[Output] = [Refused(reason, frames.spelling(code, self.version))]
                if answer_id is not None:
                    refused.append(Send(frames.fault(answer_id, code, reason, self.version)))
                return refused

    def enqueue(self, request: Request, at: float) -> list[Output]:
        """Send a CALL, now or when its turn comes."""
        if self._closed:
            return [Ended(request, Fate.DISCONNECTED, detail="the connection is closed")]
        out: list[Output] = []
        if request.key:
            for old in [old for old in self._waiting if old.key == request.key]:
                self._waiting.remove(old)
                out.append(Ended(old, Fate.SUPERSEDED, detail="a newer one took its place"))
        if len(self._waiting) >= MAX_WAITING:
            return [*out, Ended(request, Fate.OVERFLOW, detail="too many wait")]
        self._waiting.append(request)
        return out + self._pump(at)

    def reply(self, raw_id: bytes, payload: bytes) -> Send:
        """The CALLRESULT to a received CALL."""
        return Send(frames.result(raw_id, payload))

    def refuse(self, raw_id: bytes, code: ErrorCode, text: str) -> Send:
        """The CALLERROR to a received CALL."""
        return Send(frames.fault(raw_id, code, text, self.version))

    def tick(self, at: float) -> list[Output]:
        """Let time pass: an outstanding CALL past its deadline ends, the next one leaves."""
        opened, deadline = self._open, self.next_deadline
        if opened is None or deadline is None or at < deadline:
            return []
        self._open = None
        self._remember(opened)
        ended = Ended(
            opened.request,
            Fate.TIMEOUT,
            detail=f"no answer in {opened.request.deadline_s:.0f} s",
            ordered=False,
            latency_s=at - opened.sent_at,
        )
        return [ended, *self._pump(at)]

    def close(self) -> list[Output]:
        """The line is gone: everything unanswered ends as disconnected, the sent one first."""
        self._closed = True
        pending = ([self._open.request] if self._open else []) + self._waiting
        sent = self._open is not None
        self._open, self._waiting = None, []
        return [
            Ended(request, Fate.DISCONNECTED, detail="sent" if sent and index == 0 else NEVER_SENT, ordered=False)
            for index, request in enumerate(pending)
        ]

    def _pump(self, at: float) -> list[Output]:
        if self._open is not None or self._held or self._closed or not self._waiting:
            return []
        # min() keeps the order of arrival among equals.
        request = min(self._waiting, key=lambda waiting: waiting.priority)
        self._waiting.remove(request)
        self._open = _Open(self._new_id(), request, at)
        return [Send(frames.call(self._open.id, request.action, request.payload))]

    def _remember(self, opened: _Open) -> None:
        self._unanswered[opened.id] = opened
        if len(self._unanswered) > MAX_UNANSWERED:
            _, forgotten = self._unanswered.popitem(last=False)
            self._lost_weighty |= forgotten.request.weighty

    def _answer(self, message_id: str, fate: Fate, payload: bytes, detail: str, at: float) -> list[Output]:
        opened = self._open
        if opened is None or message_id != opened.id:
            late = self._unanswered.pop(message_id, None)
            if late is None:
                return [Refused("an answer to nothing", "")]
            return [Late(late.request, at - late.sent_at)]
        self._open = None
        ordered = not self._lost_weighty and not any(o.request.weighty for o in self._unanswered.values())
        ended = Ended(opened.request, fate, payload, detail, ordered, at - opened.sent_at)
        return [ended, *self._pump(at)]

    def _call(self, call: frames.Call) -> list[Output]:
        refusal = self._admit(call)
        if refusal is not None:
            return self._refusal(call, *refusal)
        try:
            message = request_decoder(self.version, call.action).decode(call.payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return self._refusal(call, *self._diagnose(self.version, call.action, call.payload))
        return [Received(call.raw_id, call.action, call.payload, message)]

    def _admit(self, call: frames.Call) -> tuple[ErrorCode, str] | None:
        if call.action not in REQUESTS[self.version]:
            return ErrorCode.NOT_IMPLEMENTED, "unknown action"
        if self.version is not Version.V16 and not self.boot_accepted and call.action != "BootNotification":
            # OCPP 2.0.1 B02.FR.09: nothing but the boot before it is accepted.
            return ErrorCode.SECURITY, "BootNotification first"
        if call.action not in self._supported:
            return ErrorCode.NOT_SUPPORTED, "known, not supported here"
        return None

    def _refusal(self, call: frames.Call, code: ErrorCode, text: str) -> list[Output]:
        known = call.action if call.action in REQUESTS[self.version] else ""
        return [Refused(text, frames.spelling(code, self.version), known), self.refuse(call.raw_id, code, text)]
