"""A gate that remembers, a line that answers as told, and an adapter between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from adapters.oscp.caller import Caller
from adapters.oscp.transport import OscpRunning
from gateway.domain.effects import OutboxItem
from gateway.domain.envelope import BindingPolicy
from gateway.domain.errors import NotAuthorised, StoreError
from gateway.domain.events import Event
from gateway.domain.ids import NodeId, PeerId, SiteId
from gateway.domain.quantities import Watts
from gateway.domain.topology import Node, NodeKind, Tree
from gateway.kit.peer import EXTENSION, PeerInfo
from gateway.ports.adapter import AdapterContext, ListenerSettings, Running, Trust
from gateway.ports.gate import AdapterRow, Inbound, Receipt, Verdict
from gateway.ports.grid import CertificateMatch, DeliveryStatus, GroupBinding, PeerSettings

NOW = datetime(2026, 3, 1, 15, 0, tzinfo=UTC)
ONBOARDING = "onboarding-token-of-dso"
OTHER_ONBOARDING = "onboarding-token-of-other"
TOKEN_B = "token-b-of-the-dso"
FP = "/oscp/fp/2.0"


class StillClock:
    """Time moves when the test says so."""

    def __init__(self) -> None:
        self.at = NOW
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOW).total_seconds()

    def wall_seconds(self, story_s: float) -> float:
        return story_s

    async def sleep_until(self, instant: datetime) -> None:
        if instant > self.at:
            sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._sleepers.append((instant, sleeper))
            await sleeper

    async def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        for due, sleeper in self._sleepers:
            if due <= self.at and not sleeper.done():
                sleeper.set_result(None)
        await settle()


async def settle() -> None:
    """Let everything that can run, run."""
    for _ in range(30):
        await asyncio.sleep(0)


@dataclass
class FakeGate:
    """Keeps the gate's contract: dedup by (peer, endpoint, id) and body; rows commit with events."""

    events: list[Event] = field(default_factory=list)
    noted: list[Event] = field(default_factory=list)
    outbox: list[OutboxItem] = field(default_factory=list)
    rows: dict[str, bytes] = field(default_factory=dict)
    inbox: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    is_broken: bool = False
    commits: int = 0

    async def submit(
        self,
        events: Sequence[Event],
        *,
        inbound: Inbound | None = None,
        rows: Sequence[AdapterRow] = (),
        outbox: Sequence[OutboxItem] = (),
    ) -> Receipt:
        await asyncio.sleep(0)
        if self.is_broken:
            raise StoreError("disk full at /secret/path")
        if inbound is not None:
            key = (inbound.peer, inbound.endpoint, inbound.message_id)
            if key in self.inbox:
                return Receipt(Verdict.DUPLICATE if self.inbox[key] == inbound.body else Verdict.CONFLICT)
            self.inbox[key] = inbound.body
        self.commits += 1
        self.events += events
        self.outbox += outbox
        for row in rows:
            assert row.adapter == "oscp"
            if row.value is None:
                self.rows.pop(row.key, None)
            else:
                self.rows[row.key] = row.value
        return Receipt(Verdict.STORED)

    def note(self, events: Sequence[Event]) -> None:
        self.noted += events

    async def measure(self, samples: Sequence[object]) -> None:
        raise AssertionError("OSCP measures nothing")

    def adapter_rows(self, adapter: str, prefix: str = "") -> dict[str, bytes]:
        assert adapter == "oscp"
        return {k: v for k, v in self.rows.items() if k.startswith(prefix)}

    def evse(self, evse: NodeId) -> Any:
        raise AssertionError("OSCP asks for no EVSE")


class RealClock:
    """For real sockets, whose certificates compare with the machine's time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_seconds(self, story_s: float) -> float:
        return story_s

    async def sleep_until(self, instant: datetime) -> None:
        await asyncio.sleep(max((instant - self.now()).total_seconds(), 0))


class Delivering(FakeGate):
    """Delivers at once what is owed, again after a refusal: the runner in four lines."""

    running: Running | None = None

    async def submit(self, *args: Any, outbox: Sequence[OutboxItem] = (), **kwargs: Any) -> Any:
        receipt = await super().submit(*args, outbox=outbox, **kwargs)
        self.tasks = [asyncio.ensure_future(self._deliver(item)) for item in outbox]
        return receipt

    async def _deliver(self, item: OutboxItem) -> None:
        assert self.running is not None
        assert self.running.carrier is not None
        while (await self.running.carrier.deliver(item)).status is DeliveryStatus.RETRY:
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Answer:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Call:
    url: str
    headers: Mapping[str, str]
    content: bytes
    method: str = "POST"


@dataclass
class FakeLine:
    """A peer's line: remembers calls; ``answers`` are used up, then 204."""

    allowed: str = "https://dso.example.org"
    calls: list[Call] = field(default_factory=list)
    answers: list[Answer | Exception] = field(default_factory=list)
    during: Callable[[], Any] | None = None
    through: Caller | None = None
    """The real caller, where the test is about it."""

    def check_url(self, url: str) -> None:
        if not url.startswith(self.allowed):
            raise NotAuthorised("not among the allowed hosts", code="peer.url")

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> Any:
        self.calls.append(Call(url, headers, content, method))
        if self.during is not None:
            await self.during()
        if self.through is not None:
            return await self.through.request(method, url, headers=headers, content=content)
        answer = self.answers.pop(0) if self.answers else Answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        pass

    def to(self, endpoint: str) -> list[Call]:
        return [c for c in self.calls if c.url.endswith("/" + endpoint)]


def a_peer(name: str, **changes: Any) -> PeerSettings:
    match = CertificateMatch(san_uri=f"urn:gridgate:party:{name}")
    values: dict[str, Any] = {
        "id": PeerId(name),
        "adapter": "oscp",
        "listener": "grid",
        "certificate": match,
        "url_hosts": ("dso.example.org",),
        "token": ONBOARDING if name == "dso" else OTHER_ONBOARDING,
    }
    return PeerSettings(**{**values, **changes})


def a_tree() -> Tree:
    main = Node(NodeId("main"), NodeKind.GRID_CONNECTION, import_max_w=Watts(60_000))
    return Tree(SiteId("depot"), {main.path: main})


def info_of(name: str | None, listener: str = "grid") -> PeerInfo:
    if name is None:
        return PeerInfo(listener, "127.0.0.1")
    return PeerInfo(listener, "127.0.0.1", cert_sha256=f"{name}-cert", san_uris=(f"urn:gridgate:party:{name}",))


class World:
    """The adapter with everything around it faked, and a Capacity Provider's hand on it."""

    def __init__(self, folder: Path, *, dso: PeerSettings | None = None, gate: FakeGate | None = None) -> None:
        self.clock = StillClock()
        self.gate = gate or FakeGate()
        self.lines: dict[str, FakeLine] = {}
        self.folder = folder
        self.peers = (dso or a_peer("dso"), a_peer("other"))
        self.token = ONBOARDING
        self._requests = 0
        self.running = self._open()

    def _open(self) -> OscpRunning:
        grid = ListenerSettings("grid", "127.0.0.1", 0, Trust.MTLS, public_url="https://fp.example.org")
        lab = ListenerSettings("lab", "127.0.0.1", 0, Trust.INSECURE)
        context = AdapterContext(
            site=SiteId("depot"),
            tree=a_tree(),
            gate=self.gate,
            clock=self.clock,
            listeners={"grid": grid, "lab": lab},
            identities={},
            peers=self.peers,
            groups=(
                GroupBinding(PeerId("dso"), "DEPOT-7", NodeId("main"), BindingPolicy()),
                GroupBinding(PeerId("other"), "FOREIGN", NodeId("main"), BindingPolicy()),
            ),
            options={"key_file": str(self.folder / "oscp.key")},
        )
        return OscpRunning(context, self._line)

    def _line(self, peer: PeerSettings) -> Caller:
        return self.lines.setdefault(peer.id, FakeLine())

    @property
    def line(self) -> FakeLine:
        return self.lines["dso"]

    async def restart(self) -> None:
        await self.running.stop(1)
        self.running = self._open()
        await self.running.start({"grid": "https://127.0.0.1:8443", "lab": "http://127.0.0.1:8080"})

    async def post(self, endpoint: str, body: Any = None, **kwargs: Any) -> httpx.Response:
        return await self.request("POST", endpoint, body, **kwargs)

    async def request(
        self,
        method: str,
        endpoint: str,
        body: Any = None,
        *,
        token: str | None = None,
        certificate: str | None = "dso",
        listener: str = "grid",
        headers: Mapping[str, str | None] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        self._requests += 1
        all_headers: dict[str, str | None] = {
            "Authorization": f"Token {token or self.token}",
            "X-Request-ID": f"request-{self._requests}",
            "Content-Type": "application/json",
            **(headers or {}),
        }
        app = _with_peer(self.running.asgi[listener], info_of(certificate, listener))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://fp.example.org") as client:
            return await client.request(
                method,
                endpoint if endpoint.startswith("/") else f"{FP}/{endpoint}",
                headers={k: v for k, v in all_headers.items() if v is not None},
                content=content,
                **({"json": body} if content is None and body is not None else {}),
            )

    async def deliver(self) -> list[Any]:
        """What the runner would do: deliver all that is owed, in order."""
        carrier = self.running.carrier
        assert carrier is not None
        owed, self.gate.outbox = self.gate.outbox, []
        return [await carrier.deliver(item) for item in owed]

    async def register(self) -> None:
        answer = await self.post("register", a_register())
        assert answer.status_code == 204, answer.text
        await self.deliver()
        self.token = token_in(self.line.to("register")[-1])

    async def handshake(self, interval: float = 60) -> None:
        behaviour = {"heartbeat_interval": interval, "measurement_configuration": ["CONTINUOUS"]}
        answer = await self.post("handshake", {"required_behaviour": behaviour})
        assert answer.status_code == 204, answer.text
        await self.deliver()
        await settle()

    def refusals(self) -> list[Any]:
        return [e for e in self.gate.noted if type(e).__name__ == "MessageRefused"]


def token_in(call: Call) -> str:
    token: str = json.loads(call.content)["token"]
    return token


def a_register(token: str = TOKEN_B, url: str = "https://dso.example.org/oscp/cp/2.0") -> dict[str, Any]:
    return {"token": token, "version_url": [{"version": "2.0", "base_url": url}]}


def a_block(**changes: Any) -> dict[str, Any]:
    block = {
        "capacity": 180,
        "phase": "ALL",
        "unit": "KW",
        "start_time": "2026-03-01T16:00:00Z",
        "end_time": "2026-03-01T18:00:00Z",
    }
    return {k: v for k, v in {**block, **changes}.items() if v is not None}


def a_forecast(*blocks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    forecast = {"group_id": "DEPOT-7", "type": "CONSUMPTION", "forecasted_blocks": list(blocks) or [a_block()]}
    return {**forecast, **changes}


def _with_peer(app: Any, info: PeerInfo) -> Any:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("extensions", {})[EXTENSION] = info
        await app(scope, receive, send)

    return mounted


@asynccontextmanager
async def a_world(folder: Path, **kwargs: Any) -> AsyncIterator[World]:
    world = World(folder, **kwargs)
    await world.running.start({"grid": "https://127.0.0.1:8443", "lab": "http://127.0.0.1:8080"})
    try:
        yield world
    finally:
        await world.running.stop(1)
