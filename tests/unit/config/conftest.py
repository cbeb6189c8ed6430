"""A folder with a sound ``site.yaml``: the depot of evening-peak, with certificates and secrets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.testing.stage import build_stage, write_site
from gateway.testing.stories.evening_peak import site
from tests.unit.config.site_file import SiteFile


@pytest.fixture(scope="session")
def stage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    write_site(build_stage(folder, site(1)), site(1), dso_host="127.0.0.1:4444")
    return folder


@pytest.fixture
def depot(stage_folder: Path, tmp_path: Path) -> SiteFile:
    folder = tmp_path / "depot"
    shutil.copytree(stage_folder, folder)
    return SiteFile(folder)
