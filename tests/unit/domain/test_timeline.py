"""Instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from gateway.domain.errors import NotUtc
from gateway.domain.timeline import require_utc

NOON = datetime(2031, 3, 1, 12)  # noqa: DTZ001 - what it is about


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(0), "own"), ZoneInfo("Africa/Abidjan")])
def test_every_zone_without_offset_is_utc(zone: timezone | ZoneInfo) -> None:
    instant = NOON.replace(tzinfo=zone)
    assert require_utc(instant) is instant


@pytest.mark.parametrize("zone", [None, timezone(timedelta(seconds=1)), ZoneInfo("Europe/Berlin")])
def test_an_instant_without_zone_or_with_an_offset_is_refused(zone: timezone | ZoneInfo | None) -> None:
    with pytest.raises(NotUtc):
        require_utc(NOON.replace(tzinfo=zone))
