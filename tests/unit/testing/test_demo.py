"""``gridgate demo``, as far as it plays nothing."""

import json

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.testing.stories import STORIES


def test_the_stories_are_listed_by_name_with_a_sentence() -> None:
    told = CliRunner().invoke(app, ["demo", "--list"])
    assert told.exit_code == 0
    assert [line.split()[0] for line in told.stdout.splitlines()] == list(STORIES)


def test_the_list_as_json_has_the_same_names() -> None:
    told = CliRunner().invoke(app, ["demo", "--list", "--json"])
    assert [story["name"] for story in json.loads(told.stdout)["stories"]] == list(STORIES)


@pytest.mark.parametrize("words", [("--story", "price-dip"), ("price-dip",)])
def test_a_story_that_there_is_not_is_refused_with_those_that_there_are(words: tuple[str, ...]) -> None:
    told = CliRunner().invoke(app, ["demo", *words])
    assert told.exit_code == 2
    assert all(name in told.stderr for name in STORIES)
