"""A day's forecast from the bytes of its request until it could be submitted, in process, against pyoscp.

No socket and no store on either side. Two measures: the body alone (of pyoscp its validation, which converts
nothing; of gridgate the whole decision: peer and token, body, group, blocks in W and UTC, the event), and each
side's whole application (WSGI, ASGI) up to what it hands the message to. Every forecast has other capacities
and other times than all before it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from adapters.oscp.core import Core
from adapters.oscp.dialect import dialect_of
from adapters.oscp.link import Link, Request
from adapters.oscp.session import Relation, State
from gateway.domain.envelope import BindingPolicy
from gateway.domain.events import EnvelopeRevised, Event
from gateway.domain.evidence import sha256_hex
from gateway.domain.ids import NodeId, PeerId
from gateway.domain.timeline import rfc3339
from gateway.kit.peer import EXTENSION
from gateway.ports.adapter import Trust
from gateway.ports.grid import GroupBinding
from tests.bench.figures import microseconds
from tests.bench.poster import PATH
from tests.interop.peers_pyoscp import PYTHON
from tests.unit.adapters.oscp.fakes import NOW, World, a_peer, a_world, info_of

RUNS = 9
FORECASTS = 40
BLOCKS = 96
TOKEN = "token-of-the-benchmark"
GROUP = "DEPOT-7"
PEER_SCRIPT = Path(__file__).with_name("pyoscp_ingest.py")
INSTALL = "tests/interop/install_pyoscp.sh"

KINDS = ("body", "app")
SIDES = ("gridgate", "pyoscp")
STEP = timedelta(minutes=15)

Seconds = dict[tuple[str, str], list[float]]
"""Per forecast, by side and kind; a value per run."""

_numbers = count(1)


def run() -> list[str]:
    """A line per measure."""
    if not PYTHON.exists():
        return [f"ingest: pyoscp is not there; {INSTALL} installs it"]
    with TemporaryDirectory(prefix="gridgate-bench-") as folder:
        found = asyncio.run(_bench(Path(folder)))
    return [
        _line(found, "body", "gridgate's decision", "pyoscp's validation"),
        _line(found, "app", "gridgate's ASGI application", "pyoscp's WSGI application"),
    ]


async def _bench(folder: Path) -> Seconds:
    found: Seconds = defaultdict(list)
    command = (str(PYTHON), str(PEER_SCRIPT))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        async with a_world(folder) as world:
            await world.register()
            for turn in range(-1, RUNS):
                for place, kind in enumerate(KINDS):
                    bodies = _bodies(len(KINDS) * (turn + 1) + place)
                    for side in SIDES[:: 1 if turn % 2 else -1]:
                        mine = side == "gridgate"
                        taken = await _ours(world, kind, bodies) if mine else _theirs(peer, kind, folder, bodies)
                        # Turn -1 warms both up.
                        if turn >= 0:
                            found[side, kind].append(taken)
        assert peer.stdin is not None
        peer.stdin.close()
    assert peer.returncode == 0, "pyoscp ended badly"
    return found


def _bodies(number: int) -> list[bytes]:
    """Forecasts of a day from an hour ahead, none of whose instants is in another one."""
    return [_forecast(number * FORECASTS + k) for k in range(FORECASTS)]


def _forecast(ordinal: int) -> bytes:
    assert ordinal < STEP.total_seconds(), "times would repeat themselves"
    start = NOW + timedelta(hours=1, seconds=ordinal)
    edges = [rfc3339(start + STEP * k) for k in range(BLOCKS + 1)]
    blocks = [
        {
            "capacity": 100_000 + ordinal + k,
            "phase": "ALL",
            "unit": "W",
            "start_time": edges[k],
            "end_time": edges[k + 1],
        }
        for k in range(BLOCKS)
    ]
    return json.dumps({"group_id": GROUP, "type": "CONSUMPTION", "forecasted_blocks": blocks}).encode()


async def _ours(world: World, kind: str, bodies: list[bytes]) -> float:
    return _decided(bodies) if kind == "body" else await _taken_by_app(world, bodies)


def _decided(bodies: list[bytes]) -> float:
    """Seconds per forecast."""
    settings, info = a_peer("dso"), info_of("dso")
    binding = GroupBinding(PeerId("dso"), GROUP, NodeId("main"), BindingPolicy())
    relation = Relation(state=State.ONLINE, token_in_sha256=sha256_hex(TOKEN.encode()))
    link = Link(settings, dialect_of(settings), {GROUP: binding}, relation)
    core = Core({link.id: link}, {"grid": Trust.MTLS}, lambda: "", lambda secret, _: secret, lambda _peer, _url: None)
    headers = {"authorization": f"Token {TOKEN}", "x-request-id": "bench"}
    decisions, start = [], perf_counter()
    for body in bodies:
        request = Request("POST", "update_group_capacity_forecast", headers, body, info, NOW)
        decisions.append(core.decide(*core.authenticate(headers, info), request))
    elapsed = perf_counter() - start
    _check([event for decision in decisions for event in decision.events])
    return elapsed / len(bodies)


async def _taken_by_app(world: World, bodies: list[bytes]) -> float:
    """Seconds per forecast."""
    app, before = world.running.asgi["grid"], len(world.gate.events)
    calls = [_Call(world.token, next(_numbers), body) for body in bodies]
    start = perf_counter()
    for call in calls:
        await app(call.scope, call.receive, call.send)
    elapsed = perf_counter() - start
    assert [call.status for call in calls] == [204] * len(bodies)
    _check(world.gate.events[before:])
    return elapsed / len(bodies)


def _check(events: Sequence[Event]) -> None:
    """Every forecast became its blocks."""
    revised = [e for e in events if isinstance(e, EnvelopeRevised)]
    assert [len(e.blocks) for e in revised] == [BLOCKS] * FORECASTS


class _Call:
    """A request as our server would hand it over, and the status that comes back."""

    def __init__(self, token: str, number: int, body: bytes) -> None:
        self._body = body
        self.status = 0
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "query_string": b"",
            "headers": [
                (b"authorization", f"Token {token}".encode()),
                (b"x-request-id", f"bench-{number}".encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
            "extensions": {EXTENSION: info_of("dso")},
        }

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": self._body}

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


def _theirs(peer: subprocess.Popen[str], kind: str, folder: Path, bodies: list[bytes]) -> float:
    """Seconds per forecast."""
    assert peer.stdin is not None
    assert peer.stdout is not None
    path = folder / "bodies.jsonl"
    path.write_bytes(b"\n".join(bodies))
    peer.stdin.write(f"{kind} {path}\n")
    peer.stdin.flush()
    return float(peer.stdout.readline())


def _line(found: Seconds, kind: str, ours: str, theirs: str) -> str:
    mine, other = found["gridgate", kind], found["pyoscp", kind]
    size = len(_forecast(0))
    return (
        f"ingest, {BLOCKS} blocks ({size:,} bytes): {ours} {microseconds(mine)}; {theirs} {microseconds(other)}; "
        f"gridgate is {median(other) / median(mine):.1f} times as fast"
    )
