"""``gridgate demo``: a simulated evening around a real gateway."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import Json
from gateway.cli.say import Exit, UsageError, put, put_json, table, verb

STORY = "evening-peak"


@verb
def demo(
    story: Annotated[str, typer.Argument(metavar="[STORY]", help="Which story.")] = STORY,
    story_option: Annotated[str, typer.Option("--story", help="The same, as an option.")] = "",
    list_stories: Annotated[bool, typer.Option("--list", help="Name the stories and play none.")] = False,
    seed: Annotated[int | None, typer.Option(help="Repeats an evening; drawn and shown if not given.")] = None,
    keep: Annotated[Path | None, typer.Option(help="A new folder for certificates, configuration, store.")] = None,
    speed: Annotated[float | None, typer.Option(help="Story seconds per real second.")] = None,
    json_output: Json = False,
) -> int:
    """Play a story: a DSO, charging stations, cars and meters around a real gateway, on loopback.

    Nothing of it touches a configuration of yours. Exit code 0 only if every check of the story held.
    """
    from gateway.testing.clock import MAX_SPEED
    from gateway.testing.world import play

    if list_stories:
        _list(json_output)
        return Exit.OK
    if speed is not None and not 0 < speed <= MAX_SPEED:
        raise UsageError(f"--speed {speed:g} is not above 0 and at most {MAX_SPEED}")
    chosen = seed if seed is not None else random.randrange(10_000)
    return play(story_option or story, seed=chosen, keep=keep, json_output=json_output, speed=speed)


def _list(json_output: bool) -> None:
    from gateway.testing.stories import STORIES

    told = {name: story.title.removeprefix(f"{name}: ") for name, story in STORIES.items()}
    if json_output:
        put_json({"stories": [{"name": name, "title": title} for name, title in told.items()]})
    else:
        for line in table(list(told.items())):
            put(line)
