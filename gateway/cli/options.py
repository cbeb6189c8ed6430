"""Arguments that several verbs share, and the configuration that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.domain.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from gateway.config import SiteConfig

SITE_FILE = Path("site.yaml")
"""The configuration that is meant when none is named: the one in the current folder."""

File = Annotated[Path, typer.Argument(metavar="[FILE]", help="The site's configuration.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


def load_config(file: Path) -> SiteConfig:
    """The configuration at ``file``.

    Raises:
        ConfigError: not there, or all that is wrong with it.
    """
    if not file.is_file():
        hint = "name the file, or make one with `gridgate init FOLDER`"
        problem = ConfigError((ConfigProblem("config.no-file", str(file), 0, "", "there is no such file"),))
        problem.hint = hint
        raise problem
    from gateway.config import load

    return load(file)
