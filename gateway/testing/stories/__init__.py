"""Stories: what happens to a site on one evening, and what must be true afterwards."""

from __future__ import annotations

from gateway.testing.stories import crash, dso_silent, evening_peak, lying_station
from gateway.testing.story import Story

STORIES: dict[str, Story] = {
    story.name: story for story in (evening_peak.STORY, dso_silent.STORY, crash.STORY, lying_station.STORY)
}
"""By the name that ``gridgate demo`` takes."""
