"""Memory of a connected idle station, everything included, against the ``ocpp`` package's server.

Stations of both versions, plain TCP and mutual TLS. Counted is what is private to the server's process
(USS), after each station has booted, was asked what it can hold and has its safe share, less what it was
after the first few stations: these load what is loaded once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.testing.child import gateway_child
from tests.bench.figures import own_kib
from tests.bench.herd import Member, a_herd
from tests.bench.rig import ROOT
from tests.bench.site import PLAIN_LISTENER, a_site
from tests.support.gateway import Depot

FIRST = 100
STATIONS = 600
VERSIONS = ("1.6", "2.0.1")


def run() -> list[str]:
    """A line per transport."""
    return [asyncio.run(_bench(tls=tls)) for tls in (False, True)]


async def _bench(*, tls: bool) -> str:
    with TemporaryDirectory(prefix="gridgate-bench-") as folder:
        members = [Member(f"CP-{n}", VERSIONS[n % 2]) for n in range(FIRST + STATIONS)]
        depot = a_site(Path(folder), members, tls=tls)
        if tls:
            identities = depot.stage.pki.stations
            members = [dataclasses.replace(member, identity=identities[member.id]) for member in members]
        ours = await _gridgate(depot, members, tls=tls)
        theirs = await _plain(depot, members, tls=tls)
    return (
        f"memory, {STATIONS} idle stations, {'mutual TLS' if tls else 'plain TCP'}: gridgate {ours:.1f} KiB each, "
        f"ocpp {theirs:.1f} KiB each; ratio {theirs / ours:.2f}"
    )


async def _gridgate(depot: Depot, members: list[Member], *, tls: bool) -> float:
    async with depot.running() as (gateway, ports):
        each = await _grown(gateway.pid, ports["ocpp" if tls else PLAIN_LISTENER], members)
        await gateway.stop()
    taken = {e.subject["evse"] for e in depot.entries("setpoint.acknowledged")}
    assert len(taken) == len(members), f"only {len(taken)} stations took their safe share"
    return each


async def _plain(depot: Depot, members: list[Member], *, tls: bool) -> float:
    site_file = [str(depot.stage.site_file)] if tls else []
    async with gateway_child((sys.executable, "-m", "tests.bench.plain_stations", *site_file), ROOT) as plain:
        return await _grown(plain.pid, (await plain.ready())["ocpp"], members)


async def _grown(pid: int, port: int, members: list[Member]) -> float:
    """KiB for each station after the first ones."""
    async with AsyncExitStack() as stack:
        herd = await stack.enter_async_context(a_herd())
        await herd.connect(port, members[:FIRST])
        before = own_kib(pid)
        await herd.connect(port, members[FIRST:])
        return (own_kib(pid) - before) / STATIONS
