"""Instants and intervals: aware UTC, half-open. No clock here: time is always handed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.domain.errors import NotUtc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
"""End of what has no end. Compares greater than every real instant."""


def require_utc(instant: datetime) -> datetime:
    """The same instant.

    Raises:
        NotUtc: no zone, or an offset other than zero.
    """
    # Nearly all are; asking each for its offset took a twelfth of a long forecast.
    if instant.tzinfo is UTC:
        return instant
    if instant.tzinfo is None or instant.utcoffset() != timedelta(0):
        raise NotUtc(f"{instant!r} is not an aware UTC instant")
    return instant


def rfc3339(instant: datetime) -> str:
    """RFC 3339 with ``Z``; fractions only where there are any, microseconds at most."""
    text = require_utc(instant).isoformat(timespec="microseconds" if instant.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime:
    """An instant in UTC from RFC 3339 text with an explicit zone.

    Raises:
        NotUtc: not a time, or a time without zone.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as problem:
        raise NotUtc(f"{text!r} is not an RFC 3339 time: {problem}") from problem
    if instant.tzinfo is None:
        raise NotUtc(f"{text!r} has no zone")
    return instant.astimezone(UTC)


def unix_ms(instant: datetime) -> int:
    """Milliseconds since 1970, rounded down, exact (no float)."""
    return (instant - EPOCH) // timedelta(milliseconds=1)


def from_unix_ms(value: int) -> datetime:
    """The inverse of :func:`unix_ms`."""
    return EPOCH + timedelta(milliseconds=value)


@dataclass(frozen=True, slots=True)
class Interval:
    """Half-open ``[start, end)`` in UTC.

    Raises:
        NotUtc: an instant that is not UTC.
        ValueError: ``end`` is not after ``start``.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        require_utc(self.start)
        require_utc(self.end)
        if self.end <= self.start:
            raise ValueError(f"interval ends ({self.end}) before it starts ({self.start})")

    def covers(self, instant: datetime) -> bool:
        """Whether ``instant`` lies inside; the end does not."""
        return self.start <= instant < self.end

    def overlaps(self, other: Interval) -> bool:
        """Whether any instant lies in both; back-to-back intervals do not overlap."""
        return self.start < other.end and other.start < self.end
