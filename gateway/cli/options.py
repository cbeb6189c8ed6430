"""Arguments that several verbs share, and the configuration that they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.say import UsageError
from gateway.domain.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from gateway.config import SiteConfig

SITE_FILE = Path("site.yaml")
"""The configuration that is meant when none is named: the one in the current folder."""

File = Annotated[Path, typer.Argument(metavar="[FILE]", help="The site's configuration.")]
FileOption = Annotated[Path, typer.Option("--file", help="The site's configuration.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
Store = Annotated[
    Path | None, typer.Option("--store", help="A store, or a copy of one; no configuration is read then.")
]


@dataclass(frozen=True, slots=True)
class Log:
    """Where an evidence log lies: its database, and its last signed head outside it where there is one."""

    path: Path
    head: Path | None


def log_of(file: Path, store: Path | None) -> Log:
    """The log of a configuration, or that of a store for whoever has nothing else.

    The head of a store lies beside it under the same name with ``.head``, as a gateway writes it by default.

    Raises:
        UsageError: both are named.
        ConfigError: see :func:`load_config`.
    """
    if store is None:
        settings = load_config(file).store
        return Log(settings.path, settings.head)
    if file != SITE_FILE:
        raise UsageError(f"--store and {file} are two logs", hint="leave one of them out")
    head = store.with_suffix(".head")
    return Log(store, head if head.is_file() else None)


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
