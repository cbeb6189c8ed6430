"""Stories: what happens to a site on one evening, and what must be true afterwards."""

from __future__ import annotations

from gateway.testing.stories import evening_peak
from gateway.testing.story import Story

STORIES: dict[str, Story] = {story.name: story for story in (evening_peak.STORY,)}
"""By the name that ``gridgate demo`` takes."""
