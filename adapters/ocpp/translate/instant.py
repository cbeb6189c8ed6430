"""Times of stations: mostly RFC 3339, sometimes without a zone. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.domain.errors import NotUtc
from gateway.domain.timeline import parse_rfc3339

MAX_AHEAD = timedelta(minutes=5)
"""A station's time further ahead of ours than this is not believed."""


def read_instant(text: str, received_at: datetime) -> tuple[datetime, bool]:
    """The instant, and whether it can be believed.

    A time without zone is read as UTC (OCPP 1.6 §3.11 recommends it); what is no time at all
    becomes ``received_at``.
    """
    try:
        instant = parse_rfc3339(text)
    except NotUtc:
        try:
            instant = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError:
            return received_at, False
    except OverflowError:
        return received_at, False
    return instant, instant <= received_at + MAX_AHEAD
