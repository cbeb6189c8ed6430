"""Every story as a test, each evening with another seed; evening-peak twice: other figures, the same verdict."""

import json

import pytest

from gateway.testing.stories import STORIES
from gateway.testing.world import WALL_LIMIT_S, play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(WALL_LIMIT_S + 20)]

MOST_EXCESS_S = {"lying-station": 60}
"""Story seconds in which more may be drawn than is allowed: one station does, until the others made room."""


EVENINGS = [("evening-peak", 7), *((story, seed) for seed, story in enumerate(STORIES, start=1))]


@pytest.mark.parametrize(("story", "seed"), EVENINGS)
def test_an_unsabotaged_evening_holds_every_check(story: str, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = play(story, seed=seed, json_output=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["error"], [check for check in document["checks"] if not check["ok"]]) == (None, [])
    assert (code, document["verdict"], document["story"]) == (0, "ok", story)
    assert document["excess_s"] <= MOST_EXCESS_S.get(story, 0)
    assert document["signal_to_ack_ms"] >= 0
    assert document["evidence"] > 0
