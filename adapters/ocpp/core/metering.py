"""Watches that a charging EVSE's meter is heard, and asks for values where it is not. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from adapters.ocpp.core.setup import HOUSEKEEPING
from adapters.ocpp.session import Request
from adapters.ocpp.wire import Version, encode, v16, v201

POLL = "poll"

SILENT_AFTER_S = 60.0
"""Without a value for so long, and three intervals, a meter counts as silent."""


class Metering:
    """One connection's meters. Seconds are monotonic, numbers the station's own."""

    def __init__(self, version: Version, interval_s: float) -> None:
        self._version = version
        self._interval_s = interval_s
        self._heard_at: dict[int, float] = {}
        self._next: float | None = None
        self._refused = False

    @property
    def deadline(self) -> float | None:
        """When to look again."""
        return self._next

    def heard(self, number: int, at: float) -> None:
        """A value came."""
        self._heard_at[number] = at

    def watch(self, at: float) -> None:
        """Begin to look."""
        self._next = at + self._interval_s

    def refused(self) -> None:
        """The station does not take the question: it is asked no more."""
        self._refused, self._next = True, None

    def tick(self, charging: Iterable[int], at: float, *, always: bool) -> list[Request]:
        """Ask for the values of silent meters, or ``always`` of all that charge."""
        if self._next is None or at < self._next or self._refused:
            return []
        self._next = at + self._interval_s
        patience = 0.0 if always else max(SILENT_AFTER_S, 3 * self._interval_s)
        numbers = sorted(set(charging))
        self._heard_at = {n: self._heard_at.get(n, at) for n in numbers}
        return [self._ask(n) for n in numbers if at - self._heard_at[n] >= patience]

    def _ask(self, number: int) -> Request:
        message: msgspec.Struct
        if self._version is Version.V16:
            message = v16.TriggerMessageRequest(requested_message="MeterValues", connector_id=number)
        else:
            message = v201.TriggerMessageRequest(requested_message="MeterValues", evse=v201.EVSEType(id=number))
        return Request(POLL, "TriggerMessage", encode(message), HOUSEKEEPING, key=f"{POLL}/{number}")
