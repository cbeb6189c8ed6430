"""``gridgate run``: the gateway."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import SITE_FILE, File, Json, load_config
from gateway.cli.say import UsageError, verb

if TYPE_CHECKING:
    from gateway.ports.clock import Clock


class Level(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@verb
def run(
    file: File = SITE_FILE,
    log_level: Annotated[Level, typer.Option(help="What is logged, from this level up.")] = Level.INFO,
    story_clock: Annotated[str, typer.Option(hidden=True, help="ANCHOR_WALL:ANCHOR_STORY:SPEED")] = "",
    json_output: Json = False,
) -> int:
    """Run the gateway until SIGTERM or Ctrl-C.

    Prints `ready` with the bound ports once it serves; logs are JSON lines on standard error.
    """
    from gateway.cli import logs

    clock = _clock(story_clock)
    config = load_config(file)
    logs.to_stderr(log_level.value)
    from gateway import runtime

    return runtime.run(config, clock=clock)


def _clock(story: str) -> Clock | None:
    """A story's clock; None is the machine's."""
    if not story:
        return None
    from gateway.testing.clock import StoryClock

    try:
        return StoryClock.parse(story)
    except ValueError as problem:
        raise UsageError(f"--story-clock: {problem}") from problem
