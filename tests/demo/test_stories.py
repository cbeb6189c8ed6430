"""Every story as a test: two seeds, two evenings, one verdict."""

import json

import pytest

from gateway.testing.stories import STORIES
from gateway.testing.world import WALL_LIMIT_S, play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(WALL_LIMIT_S + 20)]

MOST_EXCESS_S = {"lying-station": 60}
"""Story seconds in which more may be drawn than is allowed: one station does, until the others made room."""


@pytest.mark.parametrize("seed", [1, 7])
@pytest.mark.parametrize("story", STORIES)
def test_an_unsabotaged_evening_holds_every_check(story: str, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = play(story, seed=seed, json_output=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["error"], [check for check in document["checks"] if not check["ok"]]) == (None, [])
    assert (code, document["verdict"], document["story"]) == (0, "ok", story)
    assert document["excess_s"] <= MOST_EXCESS_S.get(story, 0)
    assert document["signal_to_ack_ms"] >= 0
    assert document["evidence"] > 0
