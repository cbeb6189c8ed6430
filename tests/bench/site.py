"""A site of many light stations for a benchmark: one EVSE each, no grid party that speaks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.infra.store_sql.samples import telemetry_path
from gateway.testing.stage import SitePlan, StationPlan
from tests.bench.herd import Member
from tests.support.gateway import GROUP, Depot

PLAIN_LISTENER = "ocpp-basic"
SAFE_SHARE_W = 4_140
PER_STATION_W = 23_000
DSO_HOST = "127.0.0.1:9"
"""Nobody is there: nothing is sent before a registration."""


def a_site(folder: Path, members: Sequence[Member], *, tls: bool = False) -> Depot:
    """Configured in ``folder``; stations on ``ocpp`` with a certificate each, or without on ``ocpp-basic``."""
    limit_w = PER_STATION_W * len(members)
    plan = SitePlan(
        "depot",
        GROUP,
        "main",
        [{"path": "main", "kind": "GRID_CONNECTION", "import_max_w": limit_w, "export_max_w": 0}],
        tuple(StationPlan(m.id, f"main/{m.id.lower()}", m.version, safe_share_w=SAFE_SHARE_W) for m in members),
        meters=("main",),
    )
    depot = Depot.build(folder, plan, DSO_HOST)
    if not tls:
        depot.edit(_plain)
    return depot


def _plain(document: dict[str, Any]) -> None:
    """Stations on plain TCP, which profile 0 allows on loopback."""
    document["listeners"][PLAIN_LISTENER] = {"host": "127.0.0.1", "port": 0, "trust": "insecure"}
    for station in document["stations"]:
        station.update(listener=PLAIN_LISTENER, profile=0)


def stored_samples(depot: Depot) -> int:
    """Rows of the telemetry file."""
    with sqlite3.connect(telemetry_path(depot.stage.store)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM sample").fetchone()
    return int(count)
