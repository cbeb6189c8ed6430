"""OCPP's own WebSocket listeners and the door for limits. The only file that opens sockets.

One listener is one trust domain: stations are admitted before the upgrade (`admission`), each
connection is a :class:`Line`, and the newest authenticated one of a station counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from weakref import WeakKeyDictionary

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from adapters.ocpp.admission import Bucket, Failures, Refusal, judge, proof_of, station_of
from adapters.ocpp.core import ADAPTER, Memory, OpenTransaction, Options, StationCore, Tools
from adapters.ocpp.diagnosis import diagnose
from adapters.ocpp.handshake import keep_small, watched
from adapters.ocpp.line import Line, note_later
from adapters.ocpp.newcomers import Newcomers
from adapters.ocpp.quirk_table import quirks_with
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.websocket import StationSocket
from adapters.ocpp.wire import Version
from adapters.ocpp.wire.frames import MAX_FRAME_BYTES
from gateway.domain.effects import Command
from gateway.domain.errors import ConfigError, ConfigProblem, TlsFailure
from gateway.domain.events import CommandAnswered, MessageRefused, Outcome
from gateway.domain.evidence import MessageRef
from gateway.domain.ids import PeerId, StationId
from gateway.kit.peer import PeerInfo
from gateway.kit.tls import RotatingContext, check_bind, peer_of, server_context
from gateway.ports.adapter import AdapterContext, ASGIApp, ListenerSettings, Trust
from gateway.ports.fleet import LimitActuator, StationOperator, StationSettings
from gateway.ports.gate import AdapterRow

HANDSHAKE_S = 5.0
"""For TLS and for the upgrade, each: a stalled one frees its socket."""

HANDSHAKES_PER_S, HANDSHAKES_BURST = 200.0, 400.0
"""Admission of new connections; a core signs about 600 a second."""

MAX_CONNECTIONS = 20_000
"""Open WebSockets of one listener: twice the largest fleet of one process."""

PROBE_S = 2.0
"""How long an old connection may take to prove that it lives, when a stranger claims its name."""

REFUSAL_NOTES_S = 60.0
"""At most one remark per station, code and this many seconds about refused connections."""

STRANGERS_PER_S, STRANGERS_BURST = 1 / 6, 10.0
"""Remarks on connections of nobody we know: whoever knocks must not fill the evidence."""

STRANGER = PeerId("unknown")

QUIRKS_FILE = "quirks_file"
_BOUNDS = {"heartbeat_s": (10, 86_400), "meter_interval_s": (1, 3_600), "assumed_periods": (1, 24)}

_BODY = b"refused\n"
_SPOKEN = frozenset(version.value for version in Version)

_log = logging.getLogger("gridgate.ocpp")


class OcppRunning:
    """The opened adapter: charging station management system for 1.6 and 2.0.1."""

    def __init__(self, context: AdapterContext) -> None:
        self._context = context
        self._gate = context.gate
        self._clock = context.clock
        self._options = _options(context.options)
        self._stations: Mapping[StationId, StationSettings] = {s.id: s for s in context.stations}
        self._listeners = _used_listeners(context)
        self._newcomers = Newcomers(
            context.gate,
            context.clock,
            context.stations,
            is_live=lambda station: station in self._lines,
            vacate=self._vacate,
            renewed=self._renewed,
        )
        self._lines: dict[StationId, Line] = {}
        self._memories: dict[StationId, Memory] = {}
        self._generations: dict[StationId, int] = {}
        self._servers: dict[str, Server] = {}
        self._admitted: WeakKeyDictionary[ServerConnection, tuple[StationSettings, PeerInfo]] = WeakKeyDictionary()
        self._bucket = Bucket(HANDSHAKES_PER_S, HANDSHAKES_BURST)
        self._failures = Failures()
        self._strangers = Bucket(STRANGERS_PER_S, STRANGERS_BURST)
        self._remarked: dict[tuple[StationId, str], float] = {}
        self._tools = Tools(_new_id, _draw_transaction, diagnose, b"", quirks_with(_quirks_file(context.options)))

    @property
    def asgi(self) -> Mapping[str, ASGIApp]:
        """None: OCPP has listeners of its own."""
        return MappingProxyType({})

    @property
    def actuator(self) -> LimitActuator:
        """This object carries limits to its stations."""
        return self

    @property
    def carrier(self) -> None:
        """OCPP owes no facts to grid parties."""
        return

    @property
    def admissions(self) -> StationOperator:
        """Stations that knocked, and those that were let in, beside the configured ones."""
        return self._newcomers

    @property
    def ports(self) -> Mapping[str, int]:
        """Listener's name to the port as bound."""
        return {name: int(server.sockets[0].getsockname()[1]) for name, server in self._servers.items()}

    @property
    def connected(self) -> Mapping[StationId, int]:
        """Stations that can be limited now, each with its connection's generation."""
        return {name: line.core.generation for name, line in self._lines.items() if line.core.usable}

    async def start(self, urls: Mapping[str, str]) -> None:
        """Load what was stored and open the listeners.

        Raises:
            ConfigError: a listener's certificates or address.
            StoreError: the key for pseudonyms could not be stored.
        """
        self._tools = dataclasses.replace(self._tools, user_key=await self._user_key())
        for station in self._stations:
            self._memories[station] = self._recall(station)
        for listener in self._listeners:
            self._servers[listener.name] = await self._serve(listener)

    def follow(self, context: AdapterContext) -> None:
        """Take other stations; a line to one that is gone, or described otherwise, ends with 1012 (restart)."""
        before = self._stations
        self._context = context
        self._stations = {s.id: s for s in context.stations}
        self._newcomers.follow(context.stations)
        for station in self._stations.keys() - self._memories.keys():
            self._memories[station] = self._recall(station)
        for station in [name for name in self._lines if self._stations.get(name) != before.get(name)]:
            line = self._lines.pop(station)
            line.end("another configuration")
            asyncio.ensure_future(line.close(1012, "restart")).add_done_callback(_closed)

    async def stop(self, grace_s: float) -> None:
        """Take no new connections, let commits end for ``grace_s``, close with 1012 (restart)."""
        for server in self._servers.values():
            server.close(close_connections=True, code=1012, reason="restart")
        waiting = [asyncio.ensure_future(server.wait_closed()) for server in self._servers.values()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=max(grace_s, HANDSHAKE_S))
            for task in late:
                task.cancel()
        await self._newcomers.flush()

    # --- limits ------------------------------------------------------------------------------

    def serves(self, station: StationId) -> bool:
        """Whether it is one of ours."""
        return station in self._stations

    def apply(self, command: Command) -> None:
        """See the port."""
        line = self._lines.get(command.station)
        if line is None:
            answer = CommandAnswered(
                command.id, command.evse, command.generation, Outcome.NOT_SENT, True, "not connected"
            )
            note_later(asyncio.get_running_loop(), self._gate, (answer,))
            return
        line.apply(command)

    # --- connections -------------------------------------------------------------------------

    async def _serve(self, listener: ListenerSettings) -> Server:
        check_bind(listener)

        def admit(connection: ServerConnection, request: Request) -> Response | None:
            return self._admit(listener, connection, request)

        return await serve(
            self._connection,
            listener.host,
            listener.port,
            ssl=None if listener.trust is Trust.INSECURE else self._tls(listener),
            process_request=admit,
            select_subprotocol=_select,
            compression=None,
            server_header=None,
            open_timeout=HANDSHAKE_S,
            close_timeout=HANDSHAKE_S,
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
            create_connection=StationSocket,
            logger=_websocket_log(),
        )

    def _tls(self, listener: ListenerSettings) -> RotatingContext:
        context = server_context(listener)
        keep_small()

        def report(reason: str) -> None:
            self._stranger(PeerInfo(listener.name, ""), "tls", reason)

        context.current.sslobject_class = watched(report)
        return context

    def _admit(self, listener: ListenerSettings, connection: ServerConnection, request: Request) -> Response | None:
        at = self._clock.monotonic()
        if not self._bucket.take(at) or len(self._lines) >= MAX_CONNECTIONS:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(5 + secrets.randbelow(56))})
        address = _address(connection)
        name = station_of(request.path)
        settings = self._newcomers.station(name, listener.name)
        refusal: Refusal | None
        try:
            peer = peer_of(connection.transport.get_extra_info("ssl_object"), listener.name, address)
        except TlsFailure as problem:
            peer, refusal = PeerInfo(listener.name, address), Refusal(HTTPStatus.FORBIDDEN, str(problem))
        else:
            refusal = None if settings is None else self._judge(settings, listener.trust, peer, request, at)
        if settings is None:
            self._stranger(peer, "404", f"no station {name or 'in the path'!r} here")
            self._remember(name, listener.trust, peer, request)
            return _response(HTTPStatus.NOT_FOUND)
        if refusal is not None:
            if refusal.status is HTTPStatus.FORBIDDEN:
                self._remember(name, listener.trust, peer, request)
            return self._refuse(settings, peer, refusal)
        self._admitted[connection] = (settings, peer)
        return None

    def _judge(
        self, settings: StationSettings, trust: Trust, peer: PeerInfo, request: Request, at: float
    ) -> Refusal | None:
        key = (str(settings.id), peer.remote_addr)
        if self._failures.blocked(key, at):
            return Refusal(HTTPStatus.UNAUTHORIZED, "too many wrong passwords")
        refusal = judge(settings, trust, peer, _authorization(request), self._newcomers.name_of(settings))
        if refusal is not None and refusal.status is HTTPStatus.UNAUTHORIZED and "Authorization" in request.headers:
            self._failures.add(key, at)
        return refusal

    def _remember(self, name: StationId | None, trust: Trust, peer: PeerInfo, request: Request) -> None:
        """Somebody refused who proved something: an operator may let it in later."""
        proof = None if name is None else proof_of(name, trust, peer, _authorization(request))
        if name is not None and proof is not None:
            self._newcomers.knocked(name, peer.listener, peer.remote_addr, proof)

    def _refuse(self, settings: StationSettings, peer: PeerInfo, refusal: Refusal) -> Response:
        self._remark(settings, peer, str(int(refusal.status)), refusal.reason)
        more = {"WWW-Authenticate": 'Basic realm="ocpp"'} if refusal.status is HTTPStatus.UNAUTHORIZED else {}
        return _response(refusal.status, more)

    async def _connection(self, websocket: ServerConnection) -> None:
        if not isinstance(websocket, StationSocket):
            raise TypeError("`serve` was told to create another class")
        settings, peer = self._admitted[websocket]
        if websocket.subprotocol is None:
            self._remark(settings, peer, "1002", "no common subprotocol")
            await websocket.close(1002, "no common subprotocol")
            return
        if not await self._make_room(settings, peer, websocket):
            return
        if not self._newcomers.admits(settings):
            # Since its handshake its place was given to another, or it was sent away.
            await websocket.close(1008, "no longer admitted")
            return
        line = Line(
            websocket, self._core(settings, peer, Version(websocket.subprotocol)), peer, self._gate, self._clock
        )
        self._lines[settings.id] = line
        try:
            await line.run()
        finally:
            if self._lines.get(settings.id) is line:
                del self._lines[settings.id]

    async def _make_room(self, settings: StationSettings, peer: PeerInfo, websocket: ServerConnection) -> bool:
        """One connection per station: a known credential replaces, another has to wait for silence."""
        while (old := self._lines.get(settings.id)) is not None:
            if not _same_holder(old.peer, peer):
                self._remark(settings, peer, "1008", "a second connection with another certificate or address")
                if await old.answers(PROBE_S):
                    await websocket.close(1008, "already connected")
                    return False
                if self._lines.get(settings.id) is not old:
                    continue
            del self._lines[settings.id]
            old.end("replaced")
            asyncio.ensure_future(old.close(1000, "replaced")).add_done_callback(_closed)
        return True

    async def _vacate(self, station: StationId, cause: str) -> None:
        line = self._lines.get(station)
        if line is not None:
            line.end(cause)
            await line.close(1008, cause)
            await line.finished.wait()

    def _renewed(self, station: StationId) -> None:
        generation = self._generations.get(station, 0)
        self._memories[station] = self._recall(station)
        self._generations[station] = max(generation, self._generations[station])

    def _core(self, settings: StationSettings, peer: PeerInfo, version: Version) -> StationCore:
        generation = self._generations.get(settings.id, 0) + 1
        self._generations[settings.id] = generation
        return StationCore(
            settings=settings,
            version=version,
            generation=generation,
            actor=peer.actor("station", self._newcomers.name_of(settings)),
            memory=self._memories[settings.id],
            tools=self._tools,
            options=self._options,
            proven_serial=bool(peer.cert_sha256),
        )

    def _remark(self, settings: StationSettings, peer: PeerInfo, code: str, reason: str) -> None:
        """A refused connection in evidence; repetitions within a minute are not told again."""
        at = self._clock.monotonic()
        if at - self._remarked.get((settings.id, code), -REFUSAL_NOTES_S) < REFUSAL_NOTES_S:
            return
        self._remarked[settings.id, code] = at
        self._refused(PeerId(str(settings.id)), peer, code, reason)

    def _stranger(self, peer: PeerInfo, code: str, reason: str) -> None:
        """The same for somebody who is none of our stations."""
        if self._strangers.take(self._clock.monotonic()):
            self._refused(STRANGER, peer, code, reason)

    def _refused(self, name: PeerId, peer: PeerInfo, code: str, reason: str) -> None:
        actor = peer.actor("station", str(name))
        message = MessageRef(name, "ocpp/connect", "", self._clock.now(), actor=actor)
        self._gate.note([MessageRefused(message, code, reason)])

    # --- rows --------------------------------------------------------------------------------

    async def _user_key(self) -> bytes:
        """The key for pseudonyms; deleting its row makes stored pseudonyms nobody's."""
        known = self._gate.adapter_rows(ADAPTER, "user-key").get("user-key")
        if known is not None:
            return known
        key = secrets.token_bytes(32)
        await self._gate.submit([], rows=[AdapterRow(ADAPTER, "user-key", key)])
        return key

    def _recall(self, station: StationId) -> Memory:
        rows = self._gate.adapter_rows(ADAPTER)
        capability = rows.get(f"capability/{station}")
        boot = rows.get(f"boot/{station}")
        prefix = f"tx/{station}/"
        self._generations[station] = int(rows.get(f"generation/{station}", b"0"))
        return Memory(
            booted=boot is not None,
            about={} if boot is None else _words(boot),
            capability=None if capability is None else msgspec.json.decode(capability, type=Capability),
            transactions={
                key.removeprefix(prefix): msgspec.json.decode(value, type=OpenTransaction)
                for key, value in rows.items()
                if key.startswith(prefix)
            },
        )


def _select(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The client's first choice that we speak; none finishes the handshake without one."""
    return next((word for word in offered if str(word) in _SPOKEN), None)


def _response(status: HTTPStatus, more: Mapping[str, str] | None = None) -> Response:
    headers = Headers({"Content-Type": "text/plain", "Content-Length": str(len(_BODY)), "Connection": "close"})
    headers.update(more or {})
    return Response(int(status), status.phrase, headers, _BODY)


def _authorization(request: Request) -> str | None:
    """The one header; of several none counts."""
    found = request.headers.get_all("Authorization")
    return found[0] if len(found) == 1 else None


def _address(connection: ServerConnection) -> str:
    address = connection.remote_address
    return str(address[0]) if isinstance(address, tuple) and address else ""


def _same_holder(old: PeerInfo, new: PeerInfo) -> bool:
    if old.cert_sha256 or new.cert_sha256:
        return old.cert_sha256 == new.cert_sha256
    return old.remote_addr == new.remote_addr


class _OneLine(logging.Filter):
    """A stranger who breaks off a handshake is worth a line, not a stack."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg == "opening handshake failed":
            _log.info("a handshake failed")
            return False
        return True


def _websocket_log() -> logging.Logger:
    log = logging.getLogger("gridgate.ocpp.websocket")
    if not any(isinstance(known, _OneLine) for known in log.filters):
        log.addFilter(_OneLine())
    return log


def _closed(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.info("closing a replaced connection failed: %s", task.exception())


def _new_id() -> str:
    return str(uuid.uuid4())


def _words(row: bytes) -> dict[str, str]:
    return msgspec.json.decode(row, type=dict[str, str])


def _draw_transaction() -> int:
    """Positive, 31 bits, and no hint at the next one: some stations store it as a signed integer."""
    return secrets.randbelow(2**31 - 1) + 1


def _options(given: Mapping[str, str | int | bool]) -> Options:
    known: dict[str, int] = {}
    unknown = sorted(set(given) - {*_BOUNDS, QUIRKS_FILE})
    if unknown:
        raise _config("ocpp.option", unknown[0], f"no such option; known: {', '.join((*_BOUNDS, QUIRKS_FILE))}", "")
    for name, (low, high) in _BOUNDS.items():
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _config("ocpp.option", name, f"a whole number from {low} to {high} is expected", str(value))
        known[name] = value
    return Options(**known)


def _quirks_file(given: Mapping[str, str | int | bool]) -> Path | None:
    """The operator's rows, a path that the loader has made absolute."""
    value = given.get(QUIRKS_FILE)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise _config("ocpp.option", QUIRKS_FILE, "a file of rows like those of quirks.yaml is expected", str(value))
    return Path(value)


def _used_listeners(context: AdapterContext) -> list[ListenerSettings]:
    for station in context.stations:
        listener = context.listeners.get(station.listener)
        if listener is None:
            raise _config(
                "ocpp.unknown-listener", f"stations.{station.id}.listener", "no such listener", station.listener
            )
        if (listener.trust is Trust.MTLS) != (station.profile == 3):
            text = "profile 3 belongs on a listener with trust mtls, the others on one without"
            raise _config("ocpp.profile", f"stations.{station.id}.profile", text, str(station.profile))
        if (station.profile < 2) != (listener.trust is Trust.INSECURE):
            text = "profiles 0 and 1 are for insecure (loopback) listeners, 2 and 3 for TLS"
            raise _config("ocpp.profile", f"stations.{station.id}.profile", text, str(station.profile))
        if station.profile in (1, 2) and not station.password_sha256:
            raise _config("ocpp.no-password", f"stations.{station.id}.password", "profiles 1 and 2 need a password", "")
    names = {station.listener for station in context.stations}
    return [listener for name, listener in context.listeners.items() if name in names]


def _config(code: str, key: str, message: str, found: str) -> ConfigError:
    return ConfigError((ConfigProblem(code, "", 0, key, message, found),))
