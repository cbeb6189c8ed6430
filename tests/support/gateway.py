"""A whole gateway in a process of its own, on a site of a test's making."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gateway.infra.evidence_read import EvidenceReader, StoredEntry
from gateway.infra.evidence_verify import verify_log
from gateway.testing.child import GatewayChild, gateway_child
from gateway.testing.physics import LimitBlock
from gateway.testing.stage import SitePlan, Stage, StationPlan, build_stage, write_site

GRIDGATE = (sys.executable, "-m", "gateway")
GROUP = "DEPOT-7"
STATIC_W = 60_000
PATIENCE_S = 20.0
POLL_S = 0.1
"""Between looks into the store of a running gateway."""


def a_plan(*versions: str, static_w: int = STATIC_W) -> SitePlan:
    """A depot with one station of each version, without building."""
    stations = tuple(
        StationPlan(f"CP-{n}", f"main/garage/evse-{n}", version) for n, version in enumerate(versions, start=1)
    )
    return SitePlan(
        id="depot",
        group=GROUP,
        root="main",
        nodes=(
            {"path": "main", "kind": "GRID_CONNECTION", "import_max_w": static_w, "export_max_w": 0},
            {"path": "main/garage", "kind": "CIRCUIT", "import_max_w": static_w},
        ),
        stations=stations,
        meters=("main",),
    )


@dataclass(frozen=True)
class Depot:
    """A site's folder."""

    stage: Stage
    plan: SitePlan

    @classmethod
    def build(cls, folder: Path, plan: SitePlan, dso_host: str) -> Depot:
        """Certificates, secrets and ``site.yaml`` in ``folder``."""
        folder.mkdir(mode=0o700, exist_ok=True)
        stage = build_stage(folder, plan)
        write_site(stage, plan, dso_host=dso_host)
        return cls(stage, plan)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the configuration."""
        yaml = YAML()
        document = yaml.load(self.stage.site_file)
        change(document)
        yaml.dump(document, self.stage.site_file)

    @asynccontextmanager
    async def running(self, command: Sequence[str] = GRIDGATE) -> AsyncIterator[tuple[GatewayChild, Mapping[str, int]]]:
        """The gateway as a process; ended at the latest with the block."""
        async with gateway_child((*command, "run", str(self.stage.site_file)), self.stage.folder) as child:
            yield child, await child.ready()

    def entries(self, type_: str) -> list[StoredEntry]:
        """Evidence of one type, oldest first."""
        with EvidenceReader(self.stage.store) as reader:
            return list(reversed(reader.by_type(type_, limit=10_000)))

    async def sealed(
        self, type_: str, fits: Callable[[StoredEntry], bool], within_s: float = PATIENCE_S
    ) -> StoredEntry:
        """The oldest entry of a type that fits; waits for it, real seconds."""
        async with asyncio.timeout(within_s):
            while True:
                found = next(filter(fits, self.entries(type_)), None)
                if found is not None:
                    return found
                await asyncio.sleep(POLL_S)

    def verify(self) -> None:
        """The log verifies against the head that lies outside of the database."""
        report = verify_log(self.stage.store, head_path=self.stage.folder / "gridgate.head")
        assert report.ok, report.problems


def from_now(watts: float, minutes: float = 60) -> list[LimitBlock]:
    """One block that covers now."""
    now = datetime.now(UTC).replace(microsecond=0)
    return [LimitBlock(now, now + timedelta(minutes=minutes), watts)]
