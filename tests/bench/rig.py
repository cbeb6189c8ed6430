"""Both sides of a benchmark as processes, with the same certificates and the same token."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from gateway.domain.timeline import rfc3339
from gateway.infra.clock_system import SystemClock
from gateway.kit.tls import client_context
from gateway.testing.cast import Dso
from gateway.testing.child import gateway_child
from gateway.testing.stage import DSO, SitePlan, build_stage, write_site
from tests.bench.figures import cpu_s
from tests.bench.plain_forecast import TOKEN_FILE
from tests.bench.poster import Poster
from tests.support.gateway import Depot

ROOT = Path(__file__).parents[2]
GRIDGATE = "gridgate"
PLAIN = "plain"

_numbers = count(1)


@dataclass(frozen=True)
class Side:
    """A process under measurement. ``sent``: the request ids that it acknowledged."""

    name: str
    pid: int
    ports: Mapping[str, int]
    context: ssl.SSLContext
    token: str
    sent: list[str] = field(default_factory=list)

    async def connect(self) -> Poster:
        """A connection of the grid party."""
        return await Poster.connect(self.ports["grid"], self.context, self.token)

    async def post(self, poster: Poster, body: bytes) -> None:
        """Send one forecast under an id of its own, and wait for its acknowledgement."""
        request_id = f"bench-{next(_numbers)}"
        await poster.post(request_id, body)
        self.sent.append(request_id)

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        return cpu_s(self.pid)


@dataclass(frozen=True)
class Rig:
    """The gateway and its baseline, both running."""

    depot: Depot
    sides: tuple[Side, Side]


@asynccontextmanager
async def a_rig(folder: Path, plan: SitePlan, baseline: str) -> AsyncIterator[Rig]:
    """A whole gateway with its DSO, and ``tests.bench.<baseline>``, each in a process of its own."""
    folder.chmod(0o700)
    stage = build_stage(folder, plan)
    dso = Dso(stage, plan.group, SystemClock())
    write_site(stage, plan, dso_host=await dso.start())
    depot = Depot(stage, plan)
    context = client_context(stage.pki.parties[DSO])
    async with AsyncExitStack() as stack:
        stack.push_async_callback(dso.stop)
        gateway, ports = await stack.enter_async_context(depot.running())
        await dso.join(f"https://127.0.0.1:{ports['grid']}")
        token = str(dso.peer.of("register")[-1].body["token"])
        (folder / TOKEN_FILE).write_text(token)
        command = (sys.executable, "-m", f"tests.bench.{baseline}", str(stage.site_file))
        plain = await stack.enter_async_context(gateway_child(command, ROOT))
        sides = (
            Side(GRIDGATE, gateway.pid, ports, context, token),
            Side(PLAIN, plain.pid, await plain.ready(), context, token),
        )
        yield Rig(depot, sides)
        await gateway.stop()


def forecast(group: str, watts: int, blocks: int, minutes: int = 15) -> bytes:
    """A forecast whose first block covers now."""
    start = datetime.now(UTC).replace(second=0, microsecond=0)
    edges = [rfc3339(start + timedelta(minutes=minutes) * k) for k in range(blocks + 1)]
    rows = [
        {"capacity": watts + k % 7, "phase": "ALL", "unit": "W", "start_time": edges[k], "end_time": edges[k + 1]}
        for k in range(blocks)
    ]
    return json.dumps({"group_id": group, "type": "CONSUMPTION", "forecasted_blocks": rows}).encode()
