"""A ``site.yaml`` to break, one thing at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.config import SiteConfig, load
from gateway.domain.errors import ConfigError, ConfigProblem

GONE = object()
"""As a value: take the key out."""


class SiteFile:
    """The file and its values. ``tell`` changes a value by its dotted key, as problems name it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "site.yaml"
        self.values: dict[str, Any] = YAML(typ="safe").load(self.path)

    def tell(self, key: str, value: Any) -> SiteFile:
        *way, last = _parts(key)
        inner: Any = self.values
        for part in way:
            inner = inner.setdefault(part, {}) if isinstance(inner, dict) else inner[part]
        if value is GONE:
            del inner[last]
        elif isinstance(inner, list) and last == len(inner):
            inner.append(value)
        else:
            inner[last] = value
        return self

    def secret(self, name: str, text: str, mode: int = 0o600) -> SiteFile:
        path = self.folder / "secrets" / name
        path.write_text(text)
        path.chmod(mode)
        return self

    def load(self) -> SiteConfig:
        yaml = YAML()
        yaml.representer.ignore_aliases = lambda _: True
        with self.path.open("w") as file:
            yaml.dump(self.values, file)
        return load(self.path)

    def problems(self) -> list[ConfigProblem]:
        with pytest.raises(ConfigError) as caught:
            self.load()
        assert all(p.message.removeprefix("expected").strip() for p in caught.value.problems)
        return list(caught.value.problems)


def problems_of(path: Path, content: str | bytes) -> list[ConfigProblem]:
    """What is wrong with a file of that content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return list(caught.value.problems)


def _parts(key: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in key.replace("[", ".").replace("]", "").split(".")]
