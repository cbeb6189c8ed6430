"""A running gateway reads its configuration again: taken as a whole or refused as a whole."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.words import words
from gateway.config import load
from gateway.domain.errors import ConfigError
from gateway.infra.clock_system import SystemClock
from gateway.runtime import Gateway
from gateway.testing.cast import StationActor
from tests.support.gateway import Depot, a_plan
from tests.support.ocpp import until

pytestmark = pytest.mark.anyio

E1, E2 = "main/garage/evse-1", "main/garage/evse-2"


@dataclass
class Site:
    """A gateway in this process, and the stations that its depot has."""

    depot: Depot
    gateway: Gateway
    stations: Mapping[str, StationActor] = field(default_factory=dict)

    def edit(self, change: Any) -> None:
        self.depot.edit(change)

    def is_proven(self, evse: str) -> bool:
        grant = self.gateway.runner.state.grants.get(evse)
        return grant is not None and grant.share.confirmed is not None

    def nodes(self) -> list[str]:
        return [str(node["node"]) for node in self.gateway._view.tree()["nodes"]]


@asynccontextmanager
async def a_running_site(folder: Path) -> AsyncIterator[Site]:
    plan = a_plan("1.6", "2.0.1")
    depot = Depot.build(folder / "depot", plan, "127.0.0.1:1")
    gateway = Gateway(load(depot.stage.site_file))
    ports = await gateway.start()
    stations = {s.id: StationActor(s, depot.stage, SystemClock(), 1) for s in plan.stations}
    try:
        for station in stations.values():
            await station.start(f"wss://127.0.0.1:{ports['ocpp']}")
        site = Site(depot, gateway, stations)
        await until(lambda: site.is_proven(E1) and site.is_proven(E2), 20)
        yield site
    finally:
        for station in stations.values():
            await station.stop()
        await gateway.stop("test")


def without_the_second(document: dict[str, Any]) -> None:
    document["evses"] = [row for row in document["evses"] if row["node"] != E2]
    document["stations"] = [row for row in document["stations"] if row["id"] != "CP-2"]


async def test_a_station_that_is_taken_out_is_told_to_take_nothing_and_cut_off(tmp_path: Path) -> None:
    async with a_running_site(tmp_path) as site:
        before = site.gateway.config.tree.version
        site.edit(without_the_second)
        changed = await site.gateway.reload()
        assert set(changed) == {("removed", f"node {E2}"), ("removed", "station CP-2")}
        assert E2 not in site.nodes()
        assert E2 not in site.gateway.runner.state.grants
        assert site.stations["CP-2"].peer.limit_a() == 0
        assert site.stations["CP-1"].peer.limit_a() > 0
        await until(lambda: not site.stations["CP-2"].peer.connected, 5)
        assert site.stations["CP-1"].peer.connected, "who is not concerned notices nothing"
        after = site.gateway.config.tree.version
        assert before != after
    [sealed] = site.depot.entries("topology.changed")
    assert (sealed.body["before"], sealed.body["after"]) == (before, after)
    assert ["removed", f"node {E2}"] in sealed.body["changes"]
    assert words(sealed) == f"{before} → {after}: removed node {E2}, removed station CP-2"
    told = [e for e in site.depot.entries("setpoint.sent") if e.subject["evse"] == E2][-1]
    assert told.body["steps"][-1]["limit_w"] == 0
    site.depot.verify()


async def test_a_station_that_comes_back_starts_unproven_and_is_proven_on_the_same_gateway(tmp_path: Path) -> None:
    async with a_running_site(tmp_path) as site:
        whole = site.depot.stage.site_file.read_text()
        site.edit(without_the_second)
        await site.gateway.reload()
        site.depot.stage.site_file.write_text(whole)
        changed = await site.gateway.reload()
        assert set(changed) == {("added", f"node {E2}"), ("added", "station CP-2")}
        assert not site.is_proven(E2)
        await until(lambda: site.is_proven(E2), 30)


async def test_a_wrong_file_changes_nothing_and_every_mistake_is_told_and_sealed(tmp_path: Path) -> None:
    async with a_running_site(tmp_path) as site:
        config = site.gateway.config

        def break_it(document: dict[str, Any]) -> None:
            document["nodes"][0]["import_max_w"] = -5
            document["evses"][0]["station"] = "CP-99"

        site.edit(break_it)
        with pytest.raises(ConfigError) as refused:
            await site.gateway.reload()
        assert {p.code for p in refused.value.problems} == {"config.range", "config.unknown-station"}
        assert all(p.line for p in refused.value.problems)
        assert site.gateway.config is config
        assert site.is_proven(E1)
        assert site.is_proven(E2)
    [sealed] = site.depot.entries("topology.refused")
    assert len(sealed.body["problems"]) == 2


async def test_what_only_a_restart_can_change_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with a_running_site(tmp_path) as site:

        def move(document: dict[str, Any]) -> None:
            document["site"]["operator_domain"] = "example.net"
            document["listeners"]["grid"]["port"] = 9
            document["nodes"][1]["import_max_w"] = 30_000

        site.edit(move)
        with pytest.raises(ConfigError) as refused:
            await site.gateway.reload()
        assert [(p.code, p.key) for p in refused.value.problems] == [
            ("config.needs-restart", "site.operator_domain"),
            ("config.needs-restart", "listeners"),
        ]
        assert site.gateway.config.tree.nodes["main/garage"].import_max_w != 30_000


async def test_a_file_that_says_the_same_is_no_change(tmp_path: Path) -> None:
    async with a_running_site(tmp_path) as site:
        assert await site.gateway.reload() == ()
    assert site.depot.entries("topology.changed") == []


async def test_a_lower_limit_is_held_after_the_reload(tmp_path: Path) -> None:
    async with a_running_site(tmp_path) as site:

        def lower(document: dict[str, Any]) -> None:
            document["nodes"][1]["import_max_w"] = 20_000
            document["nodes"][1]["derate"] = 0.9

        site.edit(lower)
        assert await site.gateway.reload() == (("changed", "node main/garage"),)
        garage = next(n for n in site.gateway._view.tree()["nodes"] if n["node"] == "main/garage")
        assert (garage["limit_w"], garage["limit_source"]) == (18_000, "derated_w")


async def test_a_hangup_signal_has_the_process_read_its_file_again(tmp_path: Path) -> None:
    depot = Depot.build(tmp_path / "depot", a_plan("1.6", "2.0.1"), "127.0.0.1:1")
    async with depot.running() as (child, _):
        depot.edit(without_the_second)
        os.kill(child.pid, signal.SIGHUP)
        sealed = await depot.sealed("topology.changed", lambda _entry: True)
        await child.stop()
    assert ["removed", "station CP-2"] in sealed.body["changes"]
    depot.verify()
