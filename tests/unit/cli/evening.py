"""A folder as `gridgate init` makes it, with the store of a short evening played by the real runner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from gateway.app.site import Controller
from gateway.cli import app
from gateway.config import SiteConfig, load
from gateway.domain import events as ev
from gateway.domain.envelope import Block, BlockKind, RevisionMode
from gateway.domain.evidence import MessageRef
from gateway.domain.ids import NodeId, PeerId, SourceId
from gateway.domain.measurement import Measurement, Quantity
from gateway.domain.quantities import Direction
from gateway.infra.runner import Runner
from gateway.infra.store_sql import open_store
from gateway.ports.gate import Inbound
from gateway.runtime import decode_state, site_facts
from gateway.testing.clock import ManualClock

T0 = datetime(2026, 3, 1, 17, tzinfo=UTC)
MAIN = NodeId("main")
HOUSE = NodeId("main/house")
FIRST, SECOND = "req-announced", "req-surprise"


@dataclass(frozen=True)
class Said:
    """What the command line answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def gridgate(*words: str | Path) -> Said:
    """Run a verb in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


def a_site(folder: Path) -> Path:
    """A fresh folder's ``site.yaml``."""
    assert gridgate("init", folder).code == 0
    return folder / "site.yaml"


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def play_evening(file: Path) -> None:
    """17:00 a limit of 40 kW, 17:02 one of 30 kW, the site at 35 kW all the time until 17:06:30."""
    asyncio.run(_play(load(file)))


async def _play(config: SiteConfig) -> None:
    clock = ManualClock(T0)
    store = open_store(
        config.store.path,
        head_path=config.store.head,
        key_path=config.store.key,
        origin=f"{config.operator_domain}/gridgate/{config.site}",
        clock_now=clock.now,
    )
    loaded = store.open_site(config.site)
    runner = Runner(
        config.site,
        stepper=Controller(site_facts(config)),
        state=decode_state(loaded),
        loaded=loaded,
        store=store,
        clock=clock,
        boot="test",
        fast_nodes=[MAIN],
    )
    await runner.start(config.sha256)
    await runner.submit([ev.SourceHeard(SourceId("dso"), at(60))])
    await _forecast(runner, clock, FIRST, [(0, 60, 40_000)])
    for step in range(79):
        if step == 24:
            await _forecast(runner, clock, SECOND, [(2, 60, 30_000)])
        await runner.measure([_power(clock.now())])
        await runner.submit([ev.DeadlineReached()])
        await clock.advance(5)
    await runner.stop("test")
    await asyncio.to_thread(store.close)


async def _forecast(
    runner: Runner, clock: ManualClock, request: str, spans: Sequence[tuple[float, float, int]]
) -> None:
    message = MessageRef(PeerId("dso"), "forecast", request, clock.now())
    blocks = tuple(Block(at(a), at(b), watts) for a, b, watts in spans)
    event = ev.EnvelopeRevised(
        SourceId("dso"), MAIN, Direction.IMPORT, "oscp/G", BlockKind.PRIMARY, blocks, RevisionMode.OVERLAY, message
    )
    inbound = Inbound(PeerId("dso"), "forecast", request, request.encode(), clock.now())
    await runner.submit([event], inbound=inbound)


def _power(now: datetime) -> Measurement:
    return Measurement(MAIN, Quantity.P, 35_000, now, now, source="urn:gridgate:meter:main")
