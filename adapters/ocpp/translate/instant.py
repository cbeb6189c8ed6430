"""Times of stations: mostly RFC 3339, sometimes without a zone. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from gateway.domain.errors import NotUtc
from gateway.domain.timeline import parse_rfc3339

MAX_AHEAD = timedelta(minutes=5)
"""A station's time further ahead of ours than this is not believed."""


@lru_cache(maxsize=8)
def instant_of(text: str) -> datetime | None:
    """The instant that ``text`` names, in UTC; None where it names none.

    A time without zone is read as UTC (OCPP 1.6 §3.11 recommends it). A message is asked more than once.
    """
    try:
        return parse_rfc3339(text)
    except NotUtc:
        try:
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError:
            return None
    except OverflowError:
        return None


def read_instant(text: str, received_at: datetime) -> tuple[datetime, bool]:
    """The instant, and whether it can be believed; what is no time becomes ``received_at``."""
    instant = instant_of(text)
    if instant is None:
        return received_at, False
    return instant, instant <= received_at + MAX_AHEAD
