"""The story as a test: two seeds, two evenings, one verdict."""

import json

import pytest

from gateway.testing.world import play

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 7])
def test_an_unsabotaged_evening_holds_every_check(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = play("evening-peak", seed=seed, json_output=True)
    document = json.loads(capsys.readouterr().out)
    assert [check for check in document["checks"] if not check["ok"]] == []
    assert (code, document["verdict"], document["excess_w"]) == (0, "ok", 0)
    assert document["evidence"] > 0
