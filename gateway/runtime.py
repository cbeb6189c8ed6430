"""The composition root: reads a configuration, finds adapters by entry point, wires, runs, stops.

Order of start: store (migrate, evidence tail, fork check), rebuild, due deadlines, outbox,
listeners, the line ``ready`` with ports. SIGTERM is the reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from importlib.metadata import entry_points
from typing import Any, TextIO

import msgspec

from gateway.app.adopt import is_told
from gateway.app.capacity import describe_capacity
from gateway.app.explain import explain
from gateway.app.operate import check as check_action
from gateway.app.site import SECTIONS, Controller, SiteFacts, SiteState, from_sections
from gateway.app.state import Settings
from gateway.app.views import describe_envelopes, describe_site, describe_tree
from gateway.config import SiteConfig, load
from gateway.config.changes import Change, changes, leaving, needs_restart
from gateway.domain import events as ev
from gateway.domain.errors import ActionRefused, ConfigError, ConfigProblem, LocalError, StoreError
from gateway.domain.evidence import Json
from gateway.domain.ids import NodeId, PeerId, SiteId, SourceId
from gateway.domain.measurement import Measurement, on_site_phases
from gateway.domain.timeline import rfc3339
from gateway.domain.topology import NodeKind
from gateway.infra.clock_system import SystemClock
from gateway.infra.http_server import HttpListener
from gateway.infra.runner import Runner
from gateway.infra.store_sql import open_store
from gateway.ports.adapter import Adapter, AdapterContext, Admitting, ASGIApp, Following, Operated, Running
from gateway.ports.clock import Clock
from gateway.ports.fleet import Approval, Newcomer, StationOperator
from gateway.ports.gate import EvseView, Inbound, Receipt, SiteGate, Verdict
from gateway.ports.grid import PeerOperator
from gateway.ports.store import Loaded, Store
from gateway.web.admin import admin_app

log = logging.getLogger("gridgate")

ENTRY_POINTS = "gridgate.adapters"
POLL_S = 0.05
"""Real seconds between looks whether stations that leave have been told."""

GRACE_S = 5.0
"""Real seconds that listeners and adapters get to finish at the end."""


class Gateway:
    """One site in one process."""

    def __init__(self, config: SiteConfig, clock: Clock | None = None) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self.ports: dict[str, int] = {}
        self.lost_track = asyncio.Event()
        """Set when only a new start knows what is stored."""
        self._store: Store | None = None
        self._runner: Runner | None = None
        self._running: list[Running] = []
        self._listeners: list[HttpListener] = []
        self._view: View | None = None
        self._reloading = asyncio.Lock()

    @property
    def runner(self) -> Runner:
        """The site's runner, once started."""
        if self._runner is None:
            raise RuntimeError("the gateway has not been started")
        return self._runner

    async def start(self) -> Mapping[str, int]:
        """Start in order; returns the bound ports by listener name.

        Raises:
            GatewayError: what is wrong; nothing is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop("start failed")
            raise
        return self.ports

    async def _start(self) -> None:
        config = self.config
        self._store = open_store(
            config.store.path,
            head_path=config.store.head,
            key_path=config.store.key,
            origin=f"{config.operator_domain}/gridgate/{config.site}",
            clock_now=self.clock.now,
        )
        loaded = self._store.open_site(config.site)
        facts = site_facts(config)
        self._runner = Runner(
            config.site,
            stepper=Controller(facts),
            state=decode_state(loaded),
            loaded=loaded,
            store=self._store,
            clock=self.clock,
            boot=secrets.token_hex(8),
            fast_nodes=_fast_nodes(config),
            on_lost_track=self.lost_track.set,
        )
        self._running = [
            adapter.open(adapter_context(config, name, self._runner, self.clock))
            for name, adapter in adapters_of(config).items()
        ]
        self._runner.attach([r.actuator for r in self._running if r.actuator is not None])
        await self._runner.start(config.sha256)
        await self._open_listeners()
        self._runner.carry([r.carrier for r in self._running if r.carrier is not None])

    async def _open_listeners(self) -> None:
        apps: dict[str, ASGIApp] = {}
        self._view = self.view()
        for running in self._running:
            for name, app in running.asgi.items():
                if name in apps:
                    raise _problem("config.listener-shared", name, "two adapters want the same listener")
                apps[name] = app
        if "admin" in self.config.listeners:
            apps["admin"] = admin_app(self._view)
        urls: dict[str, str] = {}
        for name, app in apps.items():
            listener = HttpListener(self.config.listeners[name], app)
            self.ports[name] = await listener.start()
            self._listeners.append(listener)
            urls[name] = self._url(name, self.ports[name])
        for running in self._running:
            await running.start(urls)
            self.ports.update(running.ports)

    def _url(self, name: str, port: int) -> str:
        settings = self.config.listeners[name]
        scheme = "http" if settings.trust.value == "insecure" else "https"
        return settings.public_url or f"{scheme}://{settings.host}:{port}"

    def view(self) -> View:
        """What may be seen of this site while it runs."""
        runner = self.runner
        return View(
            self.config,
            now=self.clock.now,
            state=lambda: runner.state,
            outbox=runner.courier.depth,
            ports=self.ports,
            is_store_broken=lambda: runner.is_store_broken,
            measure=runner.measure,
            submit=lambda events, inbound: runner.submit(events, inbound=inbound),
            operator_of=self.operator_of,
            admissions=admissions_of(self._running),
            reload=self.reload,
        )

    async def reload(self) -> tuple[Change, ...]:
        """Read the configuration's file again and go on with what it says; what changed.

        EVSEs that it no longer has are told to take nothing first. Nothing changes where the file is refused.

        Raises:
            ConfigError: it is wrong, or says something that only a restart can change.
            StoreError: not stored; it is taken all the same, and stored with the next commit that succeeds.
        """
        async with self._reloading:
            try:
                config = self._another()
            except ConfigError as problem:
                words = tuple(f"{p.code} {p.key} {p.message}"[:200] for p in problem.problems[:50])
                await self.runner.submit([ev.TopologyRefused(words)])
                raise
            changed = changes(self.config, config)
            if not changed:
                return ()
            gone = leaving(self.config, config)
            if gone:
                await self.runner.submit([ev.EvsesLeaving(gone)])
                await self._until_told(gone)
            event = ev.TopologyChanged(changed, config.sha256)
            stored = self.runner.follow(Controller(site_facts(config)), event, _fast_nodes(config))
            self.config = config
            for name, running in zip(adapters_of(config), self._running, strict=True):
                if isinstance(running, Following):
                    running.follow(adapter_context(config, name, self.runner, self.clock))
            if self._view is not None:
                self._view.follow(config)
            await stored
            return changed

    def _another(self) -> SiteConfig:
        """The configuration as its file says it now, sound and such that it can be taken while we run."""
        config = load(self.config.path)
        problems = needs_restart(self.config, config)
        if not problems and adapters_of(config).keys() != adapters_of(self.config).keys():
            problems = _problem("config.needs-restart", "stations", "an adapter starts with the gateway").problems
        if problems:
            raise ConfigError(problems)
        examine(config)
        return config

    async def _until_told(self, evses: Sequence[NodeId]) -> None:
        """Wait until EVSEs are proven to take nothing, as long as a station may take to answer."""
        end = self.clock.now() + timedelta(seconds=Settings().confirm_s)
        while self.clock.now() < end and not all(is_told(self.runner.state, evse) for evse in evses):
            await asyncio.sleep(POLL_S)

    def operator_of(self, peer: PeerId) -> PeerOperator:
        """Who can start things with a grid party: a registration, a handshake, a request.

        Raises:
            ActionRefused: no adapter of this site can.
        """
        for running in self._running:
            serves = running.carrier is not None and running.carrier.serves(peer)
            if serves and isinstance(running, Operated) and running.operator is not None:
                return running.operator
        raise ActionRefused(f"nothing can be started with {peer}: no running adapter knows how")

    async def stop(self, cause: str) -> None:
        """Stop in reverse order; what is queued is committed."""
        for listener in self._listeners:
            await listener.stop(GRACE_S)
        for running in self._running:
            await running.stop(GRACE_S)
        if self._runner is not None:
            await self._runner.stop(cause)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        self._listeners, self._running, self._runner, self._store = [], [], None, None


class View:
    """What the admin listener and the command line may see and do.

    Args:
        now: the site's clock, or when a stored state was last written.
        state: the state to describe.
        outbox: facts owed, by peer.
        measure: takes meter values; None where nobody runs.
        submit: takes an operator's action; None where nobody runs.
        operator_of: who starts things with a grid party; None where nobody runs.
        admissions: who knows stations beside the configured ones; None where no adapter does.
        reload: reads the configuration again; None where nobody runs.
    """

    def __init__(  # noqa: PLR0913  wired once, by name
        self,
        config: SiteConfig,
        *,
        now: Callable[[], datetime],
        state: Callable[[], SiteState],
        outbox: Callable[[], Mapping[str, int]],
        ports: Mapping[str, int] | None = None,
        is_store_broken: Callable[[], bool] = lambda: False,
        measure: Callable[[Sequence[Measurement]], Awaitable[None]] | None = None,
        submit: Callable[[Sequence[ev.Event], Inbound | None], Awaitable[Receipt]] | None = None,
        operator_of: Callable[[PeerId], PeerOperator] | None = None,
        admissions: StationOperator | None = None,
        reload: Callable[[], Awaitable[tuple[Change, ...]]] | None = None,
    ) -> None:
        self.follow(config)
        self._reload = reload
        self._state = state
        self._outbox = outbox
        self._ports = ports or {}
        self._is_store_broken = is_store_broken
        self._measure = measure
        self._submit = submit
        self._operator_of = operator_of
        self._admissions = admissions
        self.now = now

    def follow(self, config: SiteConfig) -> None:
        """Show the site by another configuration from now on."""
        self._config = config
        self._facts = site_facts(config)

    @property
    def site(self) -> SiteId:
        """The site's id."""
        return self._config.site

    @property
    def meters(self) -> Mapping[str, NodeId]:
        """Which certificate principal measures which node."""
        return self._config.meters

    def status(self) -> dict[str, Json]:
        """The site in words: sources, stations, sessions, what is owed, where it listens."""
        outbox: dict[str, Json] = dict(self._outbox())
        ports: dict[str, Json] = dict(self._ports)
        return {**describe_site(self._facts, self._state(), self.now()), "outbox": outbox, "ports": ports}

    def tree(self) -> dict[str, Json]:
        """Every node with its limit, allocation and measurement."""
        return describe_tree(self._facts, self._state(), self.now())

    def capacity(self, node: NodeId, minutes: int) -> dict[str, Json]:
        """What a node can carry, and what of it is committed, free and taken away, for so long.

        Raises:
            UnknownNode: no such node.
        """
        return describe_capacity(self._facts, self._state(), node, self.now(), minutes)

    def envelopes(self) -> list[Json]:
        """Every envelope."""
        return describe_envelopes(self._state())

    def stations(self) -> dict[str, Json]:
        """The configured stations, who took the place of one, and who knocked and was refused."""
        lines = self._state().stations
        admissions = self._admissions
        approvals = () if admissions is None else admissions.approvals()
        holders = {approval.place: approval.station for approval in approvals}
        return {
            "site": self.site,
            "stations": [
                {
                    "station": station.id,
                    "serial": station.serial,
                    "listener": station.listener,
                    "profile": station.profile,
                    "evses": [binding.evse for binding in station.evses],
                    "connected": station.id in lines and lines[station.id].connected,
                    "protocol": lines[station.id].protocol if station.id in lines else "",
                    "held_by": holders.get(station.id, ""),
                }
                for station in self._config.stations
            ],
            "approved": [_described(approval) for approval in approvals],
            "unknown": [] if admissions is None else [_described(newcomer) for newcomer in admissions.newcomers()],
        }

    def explain(self, evse: NodeId) -> dict[str, Json]:
        """Why an EVSE has what it has.

        Raises:
            UnknownNode: no such EVSE.
        """
        return explain(self._facts, self._state(), evse, self.now())

    def ready(self) -> dict[str, Json]:
        """Whether durable state is reached."""
        broken = self._is_store_broken()
        return {"ready": not broken, "store": "failed" if broken else "ok"}

    async def measure(self, samples: Sequence[Measurement]) -> None:
        """Store meter values. What a meter says of its own L1 to L3 is of the site phases that feed its node.

        Raises:
            StoreError: they are not stored.
        """
        if self._measure is None:
            raise LocalError("a stored state takes no measurements")
        tree = self._facts.tree
        placed = (
            on_site_phases(sample, tree.phases(sample.node)) if sample.node in tree.nodes else sample
            for sample in samples
        )
        await self._measure([sample for sample in placed if sample is not None])

    async def operate(self, event: ev.OperatorActed, inbound: Inbound) -> Receipt:
        """Do what an operator wants; returns when it is stored.

        Raises:
            DomainError: it means nothing here and now.
            StoreError: not stored, not done.
        """
        if self._submit is None:
            raise LocalError("a stored state is not operated")
        check_action(self._state(), event.action, event.subject)
        return await self._submit([event], inbound)

    async def reload(self, event: ev.OperatorActed, inbound: Inbound) -> tuple[Receipt, tuple[Change, ...]]:
        """Read the configuration again; also what changed. A repetition reads nothing.

        Raises:
            ConfigError: it is refused, and nothing changes.
            StoreError: the wish or the change is not stored.
        """
        if self._submit is None or self._reload is None:
            raise LocalError("a stored state is not operated")
        receipt = await self._submit([event], inbound)
        if receipt.verdict is not Verdict.STORED:
            return receipt, ()
        return receipt, await self._reload()

    async def approve_station(
        self, event: ev.OperatorActed, inbound: Inbound, evse: NodeId, credential: str
    ) -> Receipt:
        """Let a station that knocked in, for the one configured at ``evse``; returns when it is stored.

        Raises:
            ActionRefused: nobody such knocked, or the place is not free.
            StoreError: not stored, not done.
        """
        return await self._admitting().approve(event, inbound, evse, credential)

    async def revoke_station(self, event: ev.OperatorActed, inbound: Inbound) -> Receipt:
        """Take an approval back; returns when it is stored.

        Raises:
            ActionRefused: there is none.
            StoreError: not stored, not done.
        """
        return await self._admitting().revoke(event, inbound)

    def _admitting(self) -> StationOperator:
        if self._submit is None:
            raise LocalError("a stored state is not operated")
        if self._admissions is None:
            raise ActionRefused("no running adapter admits stations")
        return self._admissions

    async def start_with_peer(
        self, event: ev.OperatorActed, inbound: Inbound, start: Callable[[PeerOperator], Awaitable[str]]
    ) -> tuple[Receipt, str]:
        """Seal an operator's wish and start it with a grid party; also the id of the call that is owed now.

        A repetition starts nothing.

        Raises:
            ActionRefused: it means nothing in the present relation; the refusal is sealed.
            StoreError: not stored, nothing is sent.
        """
        if self._submit is None or self._operator_of is None:
            raise LocalError("a stored state is not operated")
        operator = self._operator_of(PeerId(event.subject))
        receipt = await self._submit([event], inbound)
        if receipt.verdict is not Verdict.STORED:
            return receipt, ""
        try:
            return receipt, await start(operator)
        except ActionRefused as problem:
            await self._submit([ev.MessageRefused(event.message, problem.code, str(problem))], None)
            raise


def _described(found: Newcomer | Approval) -> dict[str, Json]:
    """What an adapter knows of a station, as JSON."""
    return {
        key: rfc3339(value) if isinstance(value, datetime) else value
        for key, value in dataclasses.asdict(found).items()
    }


def admissions_of(running: Sequence[Running]) -> StationOperator | None:
    """The one among opened adapters that knows stations beside the configured ones."""
    return next((adapter.admissions for adapter in running if isinstance(adapter, Admitting)), None)


def stored_admissions(config: SiteConfig, rows: Mapping[tuple[str, str], bytes]) -> StationOperator | None:
    """The same over an adapter's stored rows, where nobody runs: only to be looked at."""
    gate = _ClosedGate(rows)
    return admissions_of(
        [a.open(adapter_context(config, name, gate, SystemClock())) for name, a in adapters_of(config).items()]
    )


def adapters_of(config: SiteConfig) -> dict[str, Adapter]:
    """The adapters that a configuration needs, by name.

    Raises:
        ConfigError: one of them is not installed.
    """
    wanted = {peer.adapter for peer in config.peers}
    if config.stations:
        wanted.add("ocpp")
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    missing = sorted(wanted - set(found))
    if missing:
        raise _problem("config.unknown-adapter", missing[0], f"installed adapters: {', '.join(sorted(found))}")
    return {name: found[name].load() for name in sorted(wanted)}


def adapter_context(config: SiteConfig, name: str, gate: SiteGate, clock: Clock) -> AdapterContext:
    """What the adapter ``name`` may see of the site."""
    peers = tuple(p for p in config.peers if p.adapter == name)
    ids = {p.id for p in peers}
    return AdapterContext(
        site=config.site,
        tree=config.tree,
        gate=gate,
        clock=clock,
        listeners=config.listeners,
        identities=config.identities,
        peers=peers,
        groups=tuple(g for g in config.groups if g.peer in ids),
        stations=config.stations if name == "ocpp" else (),
        options=config.adapters.get(name, {}),
    )


def examine(config: SiteConfig) -> None:
    """Let every adapter look at its part of a configuration, as it would at the start; does no I/O.

    Raises:
        ConfigError: the mistakes that they found, all of them.
    """
    mistakes: list[ConfigProblem] = []
    for name, adapter in adapters_of(config).items():
        try:
            adapter.open(adapter_context(config, name, _ClosedGate(), SystemClock()))
        except ConfigError as problem:
            mistakes += problem.problems
    if mistakes:
        raise ConfigError(tuple(mistakes))


class _ClosedGate:
    """The door of a site that does not run; behind it stand at most the rows of its adapters."""

    def __init__(self, rows: Mapping[tuple[str, str], bytes] | None = None) -> None:
        self._rows = rows or {}

    async def submit(self, events: Sequence[ev.Event], **_parts: Any) -> Receipt:
        """Refuse."""
        raise LocalError("the site does not run")

    def note(self, events: Sequence[ev.Event]) -> None:
        """Refuse."""
        raise LocalError("the site does not run")

    async def measure(self, samples: Sequence[Measurement]) -> None:
        """Refuse."""
        raise LocalError("the site does not run")

    def adapter_rows(self, adapter: str, prefix: str = "") -> dict[str, bytes]:
        """What is stored."""
        return {key: body for (name, key), body in self._rows.items() if name == adapter and key.startswith(prefix)}

    def evse(self, evse: NodeId) -> EvseView:
        """Refuse."""
        raise LocalError("the site does not run")


def _fast_nodes(config: SiteConfig) -> list[NodeId]:
    return [node.path for node in config.tree.nodes.values() if node.kind is NodeKind.LOAD]


def site_facts(config: SiteConfig) -> SiteFacts:
    """What the controller knows of a configuration."""
    reporting: dict[SourceId, tuple[NodeId, ...]] = {}
    for group in config.groups:
        source = SourceId(group.peer)
        reporting[source] = tuple(dict.fromkeys((*reporting.get(source, ()), group.node)))
    return SiteFacts(
        tree=config.tree,
        policies={(SourceId(g.peer), g.node): g.policy for g in config.groups},
        reporting=reporting,
        sharing=config.sharing,
    )


def decode_state(loaded: Loaded) -> SiteState:
    """The controller's state from its stored rows."""
    decoders: dict[str, msgspec.json.Decoder[Any]] = {n: msgspec.json.Decoder(t) for n, t in SECTIONS.items()}
    sections = {
        name: {key: decoders[name].decode(body) for key, body in rows.items()}
        for name, rows in loaded.sections.items()
        if name in decoders
    }
    return from_sections(loaded.seq, sections)


def run(config: SiteConfig, *, clock: Clock | None = None, out: TextIO | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status: 1 when only a new start knows what is stored."""
    return asyncio.run(_run(config, clock, out or sys.stdout))


async def _run(config: SiteConfig, clock: Clock | None, out: TextIO) -> int:
    gateway = Gateway(config, clock)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # no signal handlers on loops other than Unix ones
            loop.add_signal_handler(number, stop.set)
    ports = await gateway.start()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(gateway))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    with contextlib.suppress(NotImplementedError):  # as above
        loop.add_signal_handler(signal.SIGHUP, reload)
    print("ready", json.dumps(dict(sorted(ports.items()))), file=out, flush=True)
    ends = [asyncio.ensure_future(event.wait()) for event in (stop, gateway.lost_track)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    is_lost = gateway.lost_track.is_set()
    await gateway.stop("the store is ahead" if is_lost else "signal")
    print("stopped", file=out, flush=True)
    return 1 if is_lost else 0


async def _reload(gateway: Gateway) -> None:
    """What SIGHUP asks for. A refusal is logged, with every mistake; the site goes on as it was."""
    try:
        changed = await gateway.reload()
    except ConfigError as refused:
        for problem in refused.problems:
            log.warning("reload refused: %s:%s %s: %s", problem.file, problem.line, problem.key, problem.message)
    except StoreError:
        log.exception("reload not stored")
    else:
        log.info("reloaded: %s", ", ".join(" ".join(change) for change in changed) or "nothing changed")


def _problem(code: str, key: str, message: str) -> ConfigError:
    return ConfigError((ConfigProblem(code, "site.yaml", 0, key, message),))
