"""Whether a station's clock agrees with ours, by the times in its messages. No I/O.

A message arrives after the instant that it names, some of them much later: queued while the line was
down, or told again. So a late one proves nothing, and of many the highest difference is the nearest
to the truth. What a queue holds is told faster than it happened: its differences do not stand still.
A clock that is wrong is wrong by the same amount for longer, and that is what is asked for here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from adapters.ocpp.translate.instant import instant_of
from adapters.ocpp.wire import v16, v201

ROUND_S = 10.0
"""Real seconds that the messages of one round span at least: what delays them passes meanwhile."""

MIN_HEARD = 2
"""Messages of one round."""

AGREE_S = 5.0
"""By how much two rounds in a row may differ and still be about one clock."""

STEP_S = 5
"""What is told again: less than the least guard, and enough that a clock at its edge does not flap."""


@dataclass
class _Round:
    """``highest``: seconds by which its least late message was ahead of us."""

    began_at: float
    highest: float
    heard: int = 1


class StationClock:
    """One connection's comparison. ``told``: seconds that the clock was said to be ahead before.

    Monotonic seconds are handed in.
    """

    def __init__(self, told: int | None = None) -> None:
        self._told = told
        self._round: _Round | None = None
        self._before: float | None = None

    def was_set(self) -> None:
        """The station was told our time: what it said before counts no more, what was told does."""
        self._round = self._before = None

    def heard(self, ahead_s: float, at: float) -> int | None:
        """A message that named an instant ``ahead_s`` after its arrival (negative: before).

        The seconds that the clock is ahead, once it is certain and new: at first, and after each
        change of :data:`STEP_S`.
        """
        current = self._round
        if current is None:
            self._round = _Round(at, ahead_s)
            return None
        current.heard += 1
        current.highest = max(current.highest, ahead_s)
        if current.heard < MIN_HEARD or at - current.began_at < ROUND_S:
            return None
        self._round, before, self._before = None, self._before, current.highest
        if before is None or abs(before - current.highest) > AGREE_S:
            return None
        return self._changed(round(max(before, current.highest)))

    def _changed(self, ahead_s: int) -> int | None:
        if self._told is not None and abs(ahead_s - self._told) < STEP_S:
            return None
        self._told = ahead_s
        return ahead_s


def live_instant(message: msgspec.Struct) -> datetime | None:
    """The instant that a message names as now, None where it names none, or says that it is old.

    Only messages that a station sends when something happens. Of meter values the last one counts.
    """
    match message:
        case (
            v16.StatusNotificationRequest(timestamp=text)
            | v16.StartTransactionRequest(timestamp=text)
            | v16.StopTransactionRequest(timestamp=text)
            | v201.StatusNotificationRequest(timestamp=text)
        ):
            return None if text is None else instant_of(text)
        case v201.TransactionEventRequest(timestamp=text, offline=offline):
            return None if offline else instant_of(text)
        case v16.MeterValuesRequest(meter_value=values) | v201.MeterValuesRequest(meter_value=values):
            return instant_of(values[-1].timestamp) if values else None
        case _:
            return None
