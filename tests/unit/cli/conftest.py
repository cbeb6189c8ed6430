"""One played evening for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.evening import a_site, play_evening


@pytest.fixture(scope="session")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ``site.yaml``; nobody may change the folder."""
    file = a_site(tmp_path_factory.mktemp("evening") / "depot")
    play_evening(file)
    return file
