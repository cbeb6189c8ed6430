"""The other side: a simulated Capacity Provider (a DSO) for the demo and tests.

It shares our wire models, so it proves the story, not interoperability. It is an honest client:
its TLS verifies us, it uses a token only while it is valid, and it answers before it acts.

It can also be what DSOs are on bad days: silent, late, contradictory, repeating itself, and telling
one thing in several parts.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import uvicorn

from adapters.oscp import wire
from gateway.domain.errors import GatewayError, MalformedMessage, PeerTimeout, ProtocolViolation
from gateway.domain.timeline import rfc3339
from gateway.kit.asgi import read_body, respond, respond_json
from gateway.kit.http_client import HttpCaller, Response
from gateway.kit.tls import server_context
from gateway.ports.adapter import ClientIdentity, ListenerSettings, Trust
from gateway.ports.clock import Clock

BASE_PATH = "/oscp/cp/2.0"

_MODELS: Mapping[str, type[wire.Message]] = {
    "register": wire.Register,
    "handshake_acknowledge": wire.HandshakeAcknowledge,
    "handshake": wire.Handshake,
    "heartbeat": wire.Heartbeat,
    "update_asset_measurements": wire.UpdateAssetMeasurements,
    "update_group_measurements": wire.UpdateGroupMeasurements,
    "group_capacity_compliance_error": wire.GroupCapacityComplianceError,
    "adjust_group_capacity_forecast": wire.AdjustGroupCapacityForecast,
}
FORECAST = "update_group_capacity_forecast"
_STARTUP_POLL_S = 0.01
_KEPT = 10_000
"""Messages remembered of each kind; a story of a day stays below."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message that the Flexibility Provider sent, as it came. ``body`` is decoded JSON."""

    endpoint: str
    request_id: str
    correlation: str
    body: Any
    at: datetime
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of ours and the status that it got."""

    endpoint: str
    request_id: str
    body: Any
    at: datetime
    status: int


@dataclass(frozen=True, slots=True)
class ForecastBlock:
    """A capacity to tell, W of the three-phase sum unless said otherwise."""

    start: datetime
    end: datetime
    capacity: Decimal | int
    unit: wire.Unit = wire.Unit.W
    phase: wire.Phase = wire.Phase.ALL


class SimulatedDso:
    """A Capacity Provider on loopback.

    Args:
        fp_url: base URL of the gateway's listener, ``https://127.0.0.1:8443``.
        token: the onboarding token A.
        clock: the story's.
        client: our client certificate, and whom we trust as the gateway's server.
        server: where we serve and what we show there; None speaks plain HTTP on a free port.
        heartbeat_interval_s: in which we want the gateway's heartbeats.
    """

    def __init__(
        self,
        *,
        fp_url: str,
        token: str,
        clock: Clock,
        client: ClientIdentity | None = None,
        server: ListenerSettings | None = None,
        heartbeat_interval_s: int = 60,
    ) -> None:
        self.fp_url = fp_url.rstrip("/")
        self.heartbeat_interval_s = heartbeat_interval_s
        self.received: deque[Received] = deque(maxlen=_KEPT)
        self.sent: deque[Sent] = deque(maxlen=_KEPT)
        self._clock = clock
        self._client = client or ClientIdentity()
        self._token_out = token
        self._token_in = ""
        self._listener = server or ListenerSettings("simulated-dso", "127.0.0.1", 0, Trust.INSECURE)
        self._caller: HttpCaller | None = None
        self._server: _QuietServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._arrived = asyncio.Condition()
        self._faults: dict[str, deque[int]] = {}
        self._late_s: dict[str, float] = {}
        self._issued = ""
        self._owed: set[asyncio.Task[None]] = set()
        self.url = ""

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind and serve; :attr:`url` is known afterwards."""
        line = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        line.bind((self._listener.host, self._listener.port))
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        config.load()
        plain = self._listener.trust is Trust.INSECURE
        config.ssl = None if plain else server_context(self._listener)
        self._server = _QuietServer(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[line]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(_STARTUP_POLL_S)
        self.url = f"{'http' if plain else 'https'}://127.0.0.1:{line.getsockname()[1]}"

    async def stop(self) -> None:
        """Stop beating, serving and calling."""
        self.stop_heartbeats()
        for task in self._owed:
            task.cancel()
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        if self._caller is not None:
            await self._caller.aclose()

    # --- what a Capacity Provider says ---------------------------------------------------------

    async def register(self, *, timeout_s: float = 15.0) -> str:
        """Start a registration and wait for the answer that brings token C; the request id."""
        self._token_in = secrets.token_urlsafe(48)
        request_id = await self.send("register", self._register_message())
        await self.wait_for("register", correlation=request_id, timeout_s=timeout_s)
        return request_id

    def issue_token(self) -> str:
        """An onboarding token for a gateway that shall start the registration."""
        self._issued = secrets.token_urlsafe(48)
        return self._issued

    async def move(self) -> None:
        """Give the gateway a new token and our present address (``PUT``)."""
        before, self._token_in = self._token_in, secrets.token_urlsafe(48)
        try:
            await self.send("register", self._register_message(), method="PUT")
        except GatewayError:
            self._token_in = before
            raise

    async def leave(self) -> None:
        """End the relation (``DELETE``)."""
        answer = await self.post("register", b"", request_id=secrets.token_urlsafe(16), method="DELETE")
        if answer.status != 204:
            raise _refused("register", answer)
        self._token_in = ""

    async def handshake(self, *, timeout_s: float = 15.0) -> str:
        """Shake hands and wait for the acknowledge; the request id."""
        wanted = wire.RequiredBehaviour(
            heartbeat_interval=Decimal(self.heartbeat_interval_s),
            measurement_configuration=(wire.MeasurementConfiguration.CONTINUOUS,),
        )
        request_id = await self.send("handshake", wire.Handshake(required_behaviour=wanted))
        await self.wait_for("handshake_acknowledge", correlation=request_id, timeout_s=timeout_s)
        return request_id

    async def heartbeat(self, offline_after_s: float | None = None) -> str:
        """One heartbeat; offline after twice the interval that the gateway asked for."""
        after = timedelta(seconds=2 * self.asked_interval_s() if offline_after_s is None else offline_after_s)
        return await self.send("heartbeat", wire.Heartbeat(offline_mode_at=self._clock.now() + after))

    async def forecast(self, group: str, type_: wire.ForecastType | str, blocks: Sequence[ForecastBlock]) -> str:
        """Tell a capacity; returns its request id once the gateway has acknowledged."""
        return await self.send(FORECAST, _forecast(group, type_, blocks))

    async def send(
        self,
        endpoint: str,
        message: wire.Message,
        *,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> str:
        """Post a message; its request id.

        Raises:
            ProtocolViolation: any answer but 204, with its status and text.
        """
        request_id = request_id or secrets.token_urlsafe(16)
        answer = await self.post(endpoint, message.to_wire(), request_id=request_id, headers=headers, method=method)
        if answer.status != 204:
            raise _refused(endpoint, answer)
        return request_id

    async def post(
        self,
        endpoint: str,
        body: bytes,
        *,
        request_id: str,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Response:
        """Post raw bytes and return whatever comes back."""
        all_headers = {
            "Authorization": f"Token {token or self._token_out}",
            "Content-Type": "application/json",
            "X-Request-ID": request_id,
            **(headers or {}),
        }
        at = self._clock.now()
        url = f"{self.fp_url}/oscp/fp/{wire.VERSION}/{endpoint}"
        answer = await self._line().request(method, url, headers=all_headers, content=body)
        self.sent.append(Sent(endpoint, request_id, json.loads(body) if body else None, at, answer.status))
        return answer

    # --- bad days -----------------------------------------------------------------------------

    def fall_silent(self) -> None:
        """Send no more heartbeats, as a dead DSO does; it still answers."""
        self.stop_heartbeats()

    def answer_late(self, seconds: float, endpoint: str = "") -> None:
        """Answer so many story seconds late from now on, on one endpoint or on all. 0 is well again."""
        self._late_s[endpoint] = seconds

    async def contradict(
        self, group: str, type_: wire.ForecastType | str, block: ForecastBlock, other: Decimal | int
    ) -> str:
        """Tell two capacities for the same time in one message; its request id."""
        again = ForecastBlock(block.start, block.end, other, block.unit, block.phase)
        return await self.forecast(group, type_, [block, again])

    async def repeat(self, request_id: str, body: bytes | None = None) -> int:
        """Send a message again under its id, with the same body unless another one is given; the status."""
        sent = next(s for s in reversed(self.sent) if s.request_id == request_id)
        same = json.dumps(sent.body, separators=(",", ":")).encode()
        return (await self.post(sent.endpoint, same if body is None else body, request_id=request_id)).status

    async def forecast_in_parts(
        self,
        group: str,
        type_: wire.ForecastType | str,
        parts: Sequence[Sequence[ForecastBlock]],
        *,
        names: str = "first",
        order: Sequence[int] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[str]:
        """Tell one forecast in several messages; their request ids.

        ``names``: whether a part refers to the ``first`` one or to the ``previous``. ``order``: which
        are sent, and when, by index from 1; those that are left out never come.
        """
        all_ids = list(ids or [secrets.token_urlsafe(16) for _ in parts])
        for index in order or range(1, len(parts) + 1):
            headers = {"X-Segment-Index": str(index), "X-Segment-Count": str(len(parts))}
            if index > 1:
                headers["X-Correlation-ID"] = all_ids[0 if names == "first" else index - 2]
            message = _forecast(group, type_, parts[index - 1])
            await self.send(FORECAST, message, request_id=all_ids[index - 1], headers=headers)
        return all_ids

    def start_heartbeats(self, interval_s: float | None = None) -> None:
        """Beat by itself, every interval that the gateway asked for unless told otherwise."""
        self.stop_heartbeats()
        self._beating = asyncio.create_task(self._beat(interval_s))

    def stop_heartbeats(self) -> None:
        """Fall silent, as a dead DSO would."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    # --- what it heard -------------------------------------------------------------------------

    def of(self, endpoint: str) -> list[Received]:
        """What came on one endpoint, oldest first."""
        return [r for r in self.received if r.endpoint == endpoint]

    def asked_interval_s(self) -> float:
        """The heartbeat interval of the gateway's last acknowledge; 60 before the first."""
        for acknowledge in reversed(self.of("handshake_acknowledge")):
            behaviour = (acknowledge.body or {}).get("required_behaviour") or {}
            return float(behaviour.get("heartbeat_interval") or 60)
        return 60.0

    async def wait_for(
        self, endpoint: str, *, correlation: str | None = None, count: int = 1, timeout_s: float = 15.0
    ) -> Received:
        """The ``count``-th message on an endpoint (answering ``correlation``), now or later.

        ``timeout_s`` is in real seconds.

        Raises:
            PeerTimeout: it did not come.
        """

        def found() -> list[Received]:
            return [r for r in self.of(endpoint) if correlation is None or r.correlation == correlation]

        try:
            async with asyncio.timeout(timeout_s), self._arrived:
                await self._arrived.wait_for(lambda: len(found()) >= count)
                return found()[count - 1]
        except TimeoutError:
            raise PeerTimeout(f"no {endpoint} came within {timeout_s:g} s") from None

    def fail_next(self, endpoint: str, *statuses: int) -> None:
        """Answer the next messages on an endpoint with these statuses, then be well again."""
        self._faults.setdefault(endpoint, deque()).extend(statuses)

    # --- serving -------------------------------------------------------------------------------

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        endpoint = scope["path"].removeprefix(BASE_PATH + "/")
        try:
            body = await read_body(scope, receive)
            status, text = await self._take(scope["method"], endpoint, headers, body)
        except GatewayError as problem:
            status, text = 400, str(problem)
        if status == 204:
            await respond(send, 204)
        else:
            await respond_json(send, status, {"message": text})

    async def _take(self, method: str, endpoint: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        if endpoint not in _MODELS or (method != "POST" and endpoint != "register"):
            return 404, "no such endpoint"
        late = self._late_s.get(endpoint) or self._late_s.get("", 0.0)
        if late:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=late))
        is_start = self._issued and (method, endpoint) == ("POST", "register") and _shows(headers, self._issued)
        if not is_start and not _shows(headers, self._token_in):
            return 401, "unknown token"
        if not headers.get("x-request-id"):
            raise MalformedMessage("X-Request-ID is missing")
        faults = self._faults.get(endpoint)
        if faults:
            return faults.popleft(), "as asked"
        if method == "DELETE":
            self._token_in = ""
        else:
            self._understand(method, wire.decode(_MODELS[endpoint], body), headers)
        entry = Received(
            endpoint,
            headers["x-request-id"],
            headers.get("x-correlation-id", ""),
            json.loads(body) if body else None,
            self._clock.now(),
            method,
        )
        async with self._arrived:
            # The sender repeats what it is not sure of, under the same id: one message all the same.
            if not any(r.request_id == entry.request_id for r in self.of(endpoint)):
                self.received.append(entry)
            self._arrived.notify_all()
        return 204, ""

    def _understand(self, method: str, message: wire.Message, headers: Mapping[str, str]) -> None:
        correlation = headers.get("x-correlation-id", "")
        if isinstance(message, wire.Register):
            self._token_out = message.token
            if method == "POST" and not correlation:
                self._owe(self._answer_registration(headers["x-request-id"]))
        elif isinstance(message, wire.Handshake) and not isinstance(message, wire.HandshakeAcknowledge):
            self._owe(self._acknowledge(headers["x-request-id"]))

    def _owe(self, answer: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(answer)
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)

    async def _answer_registration(self, request_id: str) -> None:
        """Our own register, once the 204 has left. Only its success makes the onboarding token void."""
        await asyncio.sleep(_STARTUP_POLL_S)
        self._token_in = secrets.token_urlsafe(48)
        await self.send("register", self._register_message(), headers={"X-Correlation-ID": request_id})
        self._issued = ""

    async def _acknowledge(self, request_id: str) -> None:
        await asyncio.sleep(_STARTUP_POLL_S)
        wanted = wire.RequiredBehaviour(heartbeat_interval=Decimal(self.heartbeat_interval_s))
        message = wire.HandshakeAcknowledge(required_behaviour=wanted)
        await self.send("handshake_acknowledge", message, headers={"X-Correlation-ID": request_id})

    def _register_message(self) -> wire.Register:
        offer = wire.VersionUrl(version=wire.VERSION, base_url=self.url + BASE_PATH)
        return wire.Register(token=self._token_in, version_url=(offer,))

    async def _beat(self, interval_s: float | None) -> None:
        while True:
            interval = self.asked_interval_s() if interval_s is None else interval_s
            next_at = self._clock.now() + timedelta(seconds=0.9 * interval)
            try:
                await self.heartbeat(2 * interval)
            except GatewayError as problem:
                # A DSO whose gateway is away goes on beating; the story sees it in `sent`.
                body = {"problem": str(problem)}
                self.sent.append(Sent("heartbeat", "", body, self._clock.now(), 0))
            await self._clock.sleep_until(next_at)

    def _line(self) -> HttpCaller:
        if self._caller is None:
            host = self.fp_url.partition("://")[2]
            insecure = self.fp_url.startswith("http://")
            self._caller = HttpCaller(self._client, url_hosts=(host,), allow_private=True, allow_insecure=insecure)
        return self._caller

    def __repr__(self) -> str:
        return f"SimulatedDso({self.url or 'not started'}, since {rfc3339(self._clock.now())})"


def _forecast(
    group: str, type_: wire.ForecastType | str, blocks: Sequence[ForecastBlock]
) -> wire.UpdateGroupCapacityForecast:
    return wire.UpdateGroupCapacityForecast(
        group_id=group,
        type=wire.ForecastType(type_),
        forecasted_blocks=tuple(
            wire.ForecastedBlock(
                capacity=Decimal(b.capacity), phase=b.phase, unit=b.unit, start_time=b.start, end_time=b.end
            )
            for b in blocks
        ),
    )


def _shows(headers: Mapping[str, str], token: str) -> bool:
    shown = headers.get("authorization", "").encode()
    return bool(token) and hmac.compare_digest(shown, f"Token {token}".encode())


def _refused(endpoint: str, answer: Response) -> ProtocolViolation:
    text = answer.body.decode("utf-8", "replace")
    return ProtocolViolation(f"{endpoint}: HTTP {answer.status} {text}", code=f"oscp.http-{answer.status}")


class _QuietServer(uvicorn.Server):
    """Leaves the process's signals alone: it is a guest in somebody else's loop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
