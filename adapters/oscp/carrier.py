"""Calls to peers: facts from the outbox, and heartbeats, which are never queued."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from adapters.oscp import link as kinds
from adapters.oscp import session, translate, wire
from adapters.oscp.caller import Answer, Caller, may_be_repeated
from adapters.oscp.link import BASE_PATH, Link
from adapters.oscp.oauth import TokenSource
from adapters.oscp.operator import Operator, wants_our_handshake, wants_our_registration
from adapters.oscp.relations import Relations
from adapters.oscp.session import CONNECTED, Relation, State, Trigger
from adapters.oscp.vault import Vault
from gateway.domain.effects import OutboxItem
from gateway.domain.errors import GatewayError, MalformedMessage, NotAuthorised, StoreError, TransportError
from gateway.domain.evidence import Json
from gateway.domain.ids import NodeId, PeerId
from gateway.domain.quantities import Phase
from gateway.domain.timeline import EPOCH
from gateway.ports.clock import Clock
from gateway.ports.grid import Delivery, DeliveryStatus

log = logging.getLogger("gridgate.oscp")

_NO_CONTENT = 204
_UNAUTHORIZED = 401
_NO_COMMON_VERSION = 501
MAX_SKEW = timedelta(seconds=5)
"""Between the clock of a peer's server and ours; a ``Date`` has whole seconds."""

_RETRY_AFTER_CAP_S = 3_600.0
"""No peer may silence us for longer than that with one header."""

_SWALLOWED_BEAT_S = 5.0
"""Pause after a fault of our own in the heartbeat loop, in real seconds."""


@dataclass(slots=True)
class _Pulse:
    """Heartbeats to one peer: how many in a row it did not take, and when the next one is due."""

    missed: int = 0
    due: datetime = EPOCH
    wanted_s: int = 0
    was_offline: bool = False

    def starts_anew(self, wanted_s: int, *, is_offline: bool) -> bool:
        """Whether the next one is due at once: the peer wants another rhythm, or is heard again."""
        is_back = self.was_offline and not is_offline and self.missed > 0
        is_new = wanted_s != self.wanted_s
        self.wanted_s, self.was_offline = wanted_s, is_offline
        return is_back or is_new


class Carrier:
    """Delivers facts; the runner keeps their order, repeats and gives up. Also beats the hearts."""

    def __init__(
        self,
        relations: Relations,
        clock: Clock,
        vault: Vault,
        callers: Mapping[PeerId, Caller],
        operator: Operator | None = None,
        sources: Mapping[PeerId, TokenSource] | None = None,
    ) -> None:
        self._operator = operator or Operator(relations, clock, vault)
        self._relations = relations
        self._clock = clock
        self._vault = vault
        self._callers = callers
        self._sources = sources or {}
        self._skewed: set[PeerId] = set()
        self._urls: Mapping[str, str] = {}
        self._pulses = {peer: _Pulse() for peer in relations.links}
        self._by_kind: Mapping[str, Callable[[Link, OutboxItem], Awaitable[Delivery]]] = {
            kinds.REGISTER_CALLBACK: self._register,
            kinds.REGISTER_START: self._offer,
            kinds.REGISTER_UPDATE: self._offer,
            kinds.REGISTER_END: self._unregister,
            kinds.ACKNOWLEDGE: self._acknowledge,
            kinds.HANDSHAKE: self._handshake,
            kinds.ADJUST: self._adjust,
            "measurements": self._measurements,
            "compliance_error": self._compliance_error,
        }

    def listen_at(self, urls: Mapping[str, str]) -> None:
        """Where peers find us, by listener name: scheme, host and port."""
        self._urls = dict(urls)

    def serves(self, peer: PeerId) -> bool:
        """Whether ``peer`` is one of ours."""
        return peer in self._relations.links

    async def deliver(self, item: OutboxItem) -> Delivery:
        """One attempt; ``item.id`` is the ``X-Request-ID`` of every attempt."""
        try:
            return await self._deliver(self._relations.links[item.peer], item)
        except GatewayError as problem:
            return Delivery(DeliveryStatus.DEAD, f"{problem.code}: {problem}")
        except (KeyError, TypeError, ValueError) as problem:
            # A body that cannot be written never can be: it must not hold up what stands behind it.
            return Delivery(DeliveryStatus.DEAD, f"{item.kind} cannot be written: {problem!r}")

    async def _deliver(self, link: Link, item: OutboxItem) -> Delivery:
        deliver = self._by_kind.get(item.kind)
        if deliver is None:
            return Delivery(DeliveryStatus.DEAD, f"OSCP cannot carry {item.kind}")
        return await deliver(link, item)

    # --- the peer's registration --------------------------------------------------------------

    async def _register(self, link: Link, item: OutboxItem) -> Delivery:
        async with self._relations.lock(link):
            relation = link.relation
        swap = relation.swap
        if swap is None or swap.request_id != item.correlation:
            return Delivery(DeliveryStatus.DONE, "superseded or already answered")
        body = self._register_body(link, swap.token_sealed)
        delivery = await self._post(link, relation, "register", item.id, body, item.correlation)

        def still_owed(current: Relation) -> bool:
            return current.swap is not None and current.swap.request_id == swap.request_id

        def done(current: Relation) -> Relation:
            return session.finish_swap(current, link.onboarding_sha256)

        return await self._settle(link, delivery, still_owed, done, session.abandon_swap)

    def _register_body(self, link: Link, token_sealed: str) -> bytes:
        """Of every register: the token that we want to be called with, and where we are."""
        mine = wire.VersionUrl(version=wire.VERSION, base_url=self._own_url(link))
        token = self._vault.open(token_sealed, link.record("in"))
        return wire.Register(token=token, version_url=(mine,)).to_wire()

    # --- what we start ---------------------------------------------------------------------------

    async def _offer(self, link: Link, item: OutboxItem) -> Delivery:
        async with self._relations.lock(link):
            relation = link.relation
        offer = relation.offer
        if offer is None or offer.request_id != item.id:
            return Delivery(DeliveryStatus.DONE, "superseded or already answered")
        body = self._register_body(link, offer.token_sealed)
        delivery = await self._post(link, relation, "register", item.id, body, method=offer.method)

        def still_owed(current: Relation) -> bool:
            return current.offer is not None and current.offer.request_id == item.id

        link.is_refused = link.is_refused or delivery.status is DeliveryStatus.DEAD
        # A started registration waits for the peer's own register; a change holds with the 204.
        done = session.take_offer if offer.method == "PUT" else _unchanged
        return await self._settle(link, delivery, still_owed, done, session.abandon_offer)

    async def _unregister(self, link: Link, item: OutboxItem) -> Delivery:
        # The relation is over here already: its token and address came along.
        last = Relation(token_out_sealed=str(item.body["token"]), base_url=str(item.body["base_url"]))
        return await self._post(link, last, "register", item.id, b"", method="DELETE")

    async def _handshake(self, link: Link, item: OutboxItem) -> Delivery:
        async with self._relations.lock(link):
            relation = link.relation
        if relation.shaking != item.id:
            return Delivery(DeliveryStatus.DONE, "superseded or already answered")
        delivery = await self._post(link, relation, "handshake", item.id, _wishes(link))
        if delivery.status is DeliveryStatus.DEAD:
            link.is_rebuffed = True
        return await self._settle(
            link, delivery, lambda current: current.shaking == item.id, _unchanged, session.unshaken
        )

    async def _adjust(self, link: Link, item: OutboxItem) -> Delivery:
        relation = link.relation
        if relation.state not in CONNECTED:
            return Delivery(DeliveryStatus.DEAD, f"peer is {relation.state}")
        group = str(item.body["group"])
        binding = link.groups.get(group)
        if binding is None:
            return Delivery(DeliveryStatus.DEAD, f"group {group} is not bound any more")
        body = translate.wanted_capacity(
            group, str(item.body["type"]), _listed(item.body.get("blocks")), binding.phases
        ).to_wire()
        async with self._relations.lock(link):
            await self._relations.track(link, item)
        delivery = await self._post(link, relation, "adjust_group_capacity_forecast", item.id, body)
        if delivery.status is DeliveryStatus.DEAD:
            async with self._relations.lock(link):
                await self._relations.forget(link, item.id)
        return delivery

    # --- answers that a relation waits for --------------------------------------------------------

    async def _acknowledge(self, link: Link, item: OutboxItem) -> Delivery:
        async with self._relations.lock(link):
            relation = link.relation
        if relation.acknowledging != item.correlation:
            return Delivery(DeliveryStatus.DONE, "superseded or already answered")
        body = _acknowledge_body(link)
        delivery = await self._post(link, relation, "handshake_acknowledge", item.id, body, item.correlation)
        return await self._settle(
            link,
            delivery,
            lambda current: current.acknowledging == item.correlation,
            lambda current: session.acknowledged(current, Trigger.ACK_DONE),
            lambda current: session.acknowledged(current, Trigger.ACK_DEAD),
        )

    async def _settle(
        self,
        link: Link,
        delivery: Delivery,
        still_owed: Callable[[Relation], bool],
        done: Callable[[Relation], Relation],
        dead: Callable[[Relation], Relation],
    ) -> Delivery:
        if delivery.status is DeliveryStatus.RETRY:
            return delivery
        change = done if delivery.status is DeliveryStatus.DONE else dead
        async with self._relations.lock(link):
            if not still_owed(link.relation) or change(link.relation) == link.relation:
                return delivery
            try:
                await self._relations.settle(link, change(link.relation))
            except StoreError as problem:
                # The peer knows, we do not yet: the same message again, with the same id.
                return Delivery(DeliveryStatus.RETRY, str(problem))
        return delivery

    # --- facts of the controller ---------------------------------------------------------------

    async def _measurements(self, link: Link, item: OutboxItem) -> Delivery:
        relation = link.relation
        if relation.state not in CONNECTED:
            return Delivery(DeliveryStatus.DEAD, f"peer is {relation.state}")
        values = translate.wanted(_listed(item.body.get("values")), relation.measurement_configuration)
        node = NodeId(str(item.body["node"]))
        groups = [group for group, binding in link.groups.items() if binding.node == node]
        delivery = Delivery(DeliveryStatus.DONE, "nothing to tell")
        for ordinal, group in enumerate(groups if values else ()):
            endpoint, body = _measured(link, group, values)
            if body is None:
                continue
            message_id = item.id if len(groups) == 1 else f"{item.id}-{ordinal + 1}"
            delivery = await self._post(link, relation, endpoint, message_id, body)
            if delivery.status is not DeliveryStatus.DONE:
                return delivery
        return delivery

    async def _compliance_error(self, link: Link, item: OutboxItem) -> Delivery:
        relation = link.relation
        if relation.state not in CONNECTED:
            return Delivery(DeliveryStatus.DEAD, f"peer is {relation.state}")
        if not item.correlation:
            return Delivery(DeliveryStatus.DEAD, "names no forecast: there is nothing that it could answer")
        message = str(item.body["message"])
        body = translate.compliance_error(message, _listed(item.body.get("blocks")), _phases(link)).to_wire()
        return await self._post(link, relation, "group_capacity_compliance_error", item.id, body, item.correlation)

    # --- heartbeats ---------------------------------------------------------------------------

    async def beat(self, link: Link) -> None:
        """Send heartbeats as the peer asked for them, until cancelled."""
        while True:
            try:
                await self._beat_once(link)
            except Exception:  # outermost loop of the task: it must not die of one bad round
                log.exception("oscp %s: heartbeat loop restarted", link.id)
                await asyncio.sleep(_SWALLOWED_BEAT_S)

    async def _beat_once(self, link: Link) -> None:
        changed = self._relations.changed(link)
        changed.clear()
        if link.let_time_pass(self._clock.now()):
            log.warning("oscp %s: not heard since its promise ran out; offline", link.id)
        if wants_our_registration(link):
            await self._operator.register(link.id)
            return
        if wants_our_handshake(link):
            await self._operator.handshake(link.id)
            return
        relation, pulse = link.relation, self._pulses[link.id]
        if relation.state not in (State.ONLINE, State.OFFLINE) or relation.heartbeat_s is None:
            await changed.wait()
            return
        now = self._clock.now()
        is_offline = relation.state is State.OFFLINE
        if pulse.starts_anew(relation.heartbeat_s, is_offline=is_offline) or now >= pulse.due:
            interval = timedelta(seconds=relation.heartbeat_s)
            delivery = await self._heartbeat(link, relation, now + 2 * interval)
            self._mark(link, pulse, delivery)
            pulse.due = now + session.beat_after(interval, pulse.missed, is_offline=is_offline)
            return
        silent_at = link.listening.until
        await self._until(pulse.due if silent_at is None or is_offline else min(pulse.due, silent_at), changed)

    async def _heartbeat(self, link: Link, relation: Relation, offline_at: datetime) -> Delivery:
        body = json.dumps({"offline_mode_at": link.dialect.heartbeat_text(offline_at)}).encode()
        return await self._post(link, relation, "heartbeat", secrets.token_urlsafe(16), body)

    async def _until(self, instant: datetime, changed: asyncio.Event) -> None:
        """Sleep, or wake earlier when the relation has changed."""
        timer = asyncio.ensure_future(self._clock.sleep_until(instant))
        waiter = asyncio.ensure_future(changed.wait())
        try:
            await asyncio.wait({timer, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiter.cancel()

    def _mark(self, link: Link, pulse: _Pulse, delivery: Delivery) -> None:
        """Count, and log a loss once and a return once."""
        if delivery.status is DeliveryStatus.DONE:
            if pulse.missed:
                log.info("oscp %s: takes heartbeats again", link.id)
            pulse.missed = 0
            return
        if not pulse.missed:
            log.warning("oscp %s: heartbeat not taken: %s", link.id, delivery.detail)
        pulse.missed += 1

    # --- the line -------------------------------------------------------------------------------

    def _own_url(self, link: Link) -> str:
        return self._urls[link.settings.listener].rstrip("/") + BASE_PATH

    async def _post(
        self,
        link: Link,
        relation: Relation,
        endpoint: str,
        message_id: str,
        body: bytes,
        correlation: str = "",
        *,
        method: str = "POST",
    ) -> Delivery:
        headers = {**link.headers, "Content-Type": "application/json", "X-Request-ID": message_id}
        if correlation:
            headers["X-Correlation-ID"] = correlation
        url = f"{relation.base_url or link.address}/{link.dialect.path(endpoint)}"
        try:
            answer = await self._called(link, relation, method, url, headers, body)
        except (TransportError, MalformedMessage) as problem:
            return Delivery(DeliveryStatus.RETRY, f"{problem.code}: {problem}")
        except NotAuthorised as problem:
            # The address may not be called, or no token is given: not now, and not a minute later.
            return Delivery(DeliveryStatus.DEAD, f"{problem.code}: {problem}")
        self._compare_clocks(link, answer)
        return judged(endpoint, answer)

    def _compare_clocks(self, link: Link, answer: Answer) -> None:
        """Log once when a peer's clock is off, and once when it is not any more: promises are instants."""
        if self._clock.wall_seconds(1.0) != 1.0:
            return  # A story's time is nobody else's.
        ahead = _ahead(answer.headers, self._clock.now())
        if ahead is None or (abs(ahead) > MAX_SKEW) is (link.id in self._skewed):
            return
        if link.id in self._skewed:
            self._skewed.discard(link.id)
            log.info("oscp %s: its clock agrees with ours again", link.id)
        else:
            self._skewed.add(link.id)
            log.warning("oscp %s: its clock is %+.0f s from ours", link.id, ahead.total_seconds())

    async def _called(
        self, link: Link, relation: Relation, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """One call with the present token; with an access token that has become void, a second one with a new one."""
        caller, source = self._callers[link.id], self._sources.get(link.id)
        token = await source.token() if source else self._fixed_token(link, relation)
        answer = await caller.request(method, url, headers=_authorised(link, token, headers), content=body)
        if source is None or answer.status != _UNAUTHORIZED:
            return answer
        source.forget(token)
        token = await source.token()
        return await caller.request(method, url, headers=_authorised(link, token, headers), content=body)

    def _fixed_token(self, link: Link, relation: Relation) -> str:
        # Before the first answer there is the token of the onboarding alone.
        sealed = relation.token_out_sealed
        return self._vault.open(sealed, link.record("out")) if sealed else link.settings.token


def _authorised(link: Link, token: str, headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Authorization": f"{link.dialect.scheme} {token}"}


def judged(endpoint: str, answer: Answer) -> Delivery:
    """What a peer's status means for the item that it answers."""
    status = answer.status
    detail = f"{endpoint}: HTTP {status}"
    if 200 <= status < 300:
        if status != _NO_CONTENT:
            log.info("oscp: %s answered with %d where 204 belongs", endpoint, status)
        return Delivery(DeliveryStatus.DONE, detail)
    # 501 to a register says that there is no common version: it never will be otherwise.
    is_final = status == _NO_COMMON_VERSION and endpoint == "register"
    if not is_final and may_be_repeated(status):
        return Delivery(DeliveryStatus.RETRY, detail, _retry_after(answer.headers))
    return Delivery(DeliveryStatus.DEAD, detail)


def _ahead(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How far the clock behind a ``Date`` is ahead of ours, negative: behind; None without one."""
    try:
        date = parsedate_to_datetime(_lower(headers).get("date", ""))
    except (ValueError, TypeError):
        return None
    # Without a zone it is UTC all the same (RFC 9110 §5.6.7).
    return (date if date.tzinfo else date.replace(tzinfo=UTC)) - now


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a ``Retry-After``, at most an hour. A date counts from the answer's own ``Date``."""
    lower = _lower(headers)
    value = lower.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return min(float(value), _RETRY_AFTER_CAP_S)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(lower.get("date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(wait.total_seconds(), 0.0), _RETRY_AFTER_CAP_S)


def _unchanged(relation: Relation) -> Relation:
    return relation


def _measured(link: Link, group: str, values: Sequence[Mapping[str, Json]]) -> tuple[str, bytes | None]:
    """Endpoint and body of a report; no body where there is nothing of the kind that the peer takes."""
    dialect = link.dialect
    unit = wire.EnergyUnit(dialect.measurement_unit)
    if dialect.metering == "asset":
        asset = translate.asset_measurements(group, values, dialect.asset_category, wire.Unit(dialect.asset_unit))
        return "update_asset_measurements", asset.to_wire() if asset else None
    registers = translate.group_measurements(group, values, unit)
    return "update_group_measurements", registers.to_wire() if registers.measurements else None


def _wishes(link: Link) -> bytes:
    wanted = {"heartbeat_interval": link.dialect.heartbeat_interval_s, "measurement_configuration": []}
    return json.dumps({"required_behaviour": wanted}).encode()


def _acknowledge_body(link: Link) -> bytes:
    match link.dialect.acknowledge_body:
        case "empty":
            return b"{}"
        case "interval":
            return json.dumps(
                {"required_behaviour": {"heartbeat_interval": link.dialect.heartbeat_interval_s}}
            ).encode()
        case _:
            return _wishes(link)


def _phases(link: Link) -> tuple[Phase, Phase, Phase]:
    """The peer's phase order; peers with several groups wire them alike."""
    for binding in link.groups.values():
        return binding.phases
    return (Phase.L1, Phase.L2, Phase.L3)


def _listed(value: Json) -> Sequence[Mapping[str, Json]]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return [item for item in value if isinstance(item, Mapping)]
