"""The adapter behind its real listener with mutual TLS, a simulated DSO on the other side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.oscp import ADAPTER
from adapters.oscp.peer import BASE_PATH, SimulatedDso
from gateway.domain.envelope import BindingPolicy
from gateway.domain.ids import NodeId, PeerId, SiteId
from gateway.infra.http_server import HttpListener
from gateway.pki.dev import DevPki
from gateway.ports.adapter import AdapterContext
from gateway.ports.grid import GroupBinding
from tests.unit.adapters.oscp.fakes import ONBOARDING, Delivering, RealClock, a_peer, a_tree


@asynccontextmanager
async def a_site(
    pki: DevPki, folder: Path, *, we_start: bool = False, **options: Any
) -> AsyncIterator[tuple[Delivering, SimulatedDso, HttpListener]]:
    clock, gate = RealClock(), Delivering()
    party = pki.parties["dso"]
    dso_server = replace(pki.settings("grid"), name="dso", certificate=party.certificate, key=party.key)
    dso = SimulatedDso(fp_url="https://127.0.0.1:1", token=ONBOARDING, clock=clock, client=party, server=dso_server)
    await dso.start()
    token = ONBOARDING
    if we_start:
        token = dso.issue_token()
        options = {"address": dso.url + BASE_PATH, **options}
    peer = a_peer(
        "dso", url_hosts=(dso.url.removeprefix("https://"),), allow_private=True, token=token, options=options
    )
    grid = pki.settings("grid")
    context = AdapterContext(
        site=SiteId("depot"),
        tree=a_tree(),
        gate=gate,
        clock=clock,
        listeners={"grid": grid},
        identities={"grid": pki.client},
        peers=(peer,),
        groups=(GroupBinding(PeerId("dso"), "DEPOT-7", NodeId("main"), BindingPolicy()),),
        options={"key_file": str(folder / "oscp.key")},
    )
    running = gate.running = ADAPTER.open(context)
    listener = HttpListener(grid, running.asgi["grid"])
    await listener.start()
    dso.fp_url = f"https://127.0.0.1:{listener.port}"
    await running.start({"grid": dso.fp_url})
    try:
        yield gate, dso, listener
    finally:
        await running.stop(1)
        await dso.stop()
        await listener.stop(1)
