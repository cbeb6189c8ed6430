"""A folder with a sound ``site.yaml``: a depot with four stations, certificates and secrets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.testing.stage import SitePlan, StationPlan, build_stage, write_site
from tests.unit.config.site_file import SiteFile

PLAN = SitePlan(
    id="depot",
    group="DEPOT-7",
    root="main",
    nodes=(
        {"path": "main", "kind": "GRID_CONNECTION", "import_max_w": 60_000, "export_max_w": 0},
        {
            "path": "main/garage",
            "kind": "CIRCUIT",
            "import_max_w": 44_000,
            "import_max_a": {"L1": 63, "L2": 63, "L3": 63},
        },
        {"path": "main/house", "kind": "LOAD", "reserve_w": 8_000},
    ),
    stations=(
        StationPlan("CP-1", "main/garage/evse-1", "1.6"),
        StationPlan("CP-2", "main/garage/evse-2", "1.6"),
        StationPlan("CP-3", "main/garage/evse-3", "2.0.1"),
        StationPlan("CP-4", "main/garage/evse-4", "2.0.1"),
    ),
    meters=("main", "main/house"),
)


@pytest.fixture(scope="session")
def stage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    write_site(build_stage(folder, PLAN), PLAN, dso_host="127.0.0.1:4444")
    return folder


@pytest.fixture
def depot(stage_folder: Path, tmp_path: Path) -> SiteFile:
    folder = tmp_path / "depot"
    shutil.copytree(stage_folder, folder)
    return SiteFile(folder)
