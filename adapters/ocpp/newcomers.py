"""Stations that nobody configured: who knocked and was refused, and whom an operator lets in for whom.

A newcomer that is let in takes the place of one configured station: the domain goes on to know that
station's opaque id and its EVSEs, what stands behind it is known here alone. What it proved when it
knocked is what it has to prove from then on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from adapters.ocpp.admission import Bucket, Proof, by_id
from adapters.ocpp.core import ADAPTER, OpenTransaction
from gateway.domain.errors import ActionRefused, GatewayError
from gateway.domain.events import OperatorActed, OperatorAction, SessionEnded
from gateway.domain.ids import NodeId, StationId
from gateway.ports.clock import Clock
from gateway.ports.fleet import Approval, Newcomer, StationSettings
from gateway.ports.gate import AdapterRow, Inbound, Receipt, SiteGate, Verdict

MAX_KNOCKS = 32
"""Newcomers remembered per listener, the newest ones: strangers on one cannot drive out those of another."""

SAVE_EVERY_S = 60.0
"""How often the row of one that goes on knocking is written; how often it came is at most so much behind."""

SAVES_PER_S, SAVES_BURST = 1 / 6, 10.0
"""Rows written for strangers: whoever knocks must not keep the store busy. The rest waits in memory."""

_KNOCK, _APPROVAL = "unknown/", "approved/"

_log = logging.getLogger("gridgate.ocpp")


class _Knock(msgspec.Struct, frozen=True):
    """A newcomer as its row keeps it. ``password_sha256`` is for admission alone and is shown to nobody."""

    station: str
    listener: str
    profile: int
    serial: str
    credential: str
    address: str
    first_at: datetime
    last_at: datetime
    times: int
    password_sha256: str = ""

    @property
    def key(self) -> str:
        """A new certificate of the same serial is the same station; another password is another one."""
        return f"{_KNOCK}{self.listener}/{self.station}/{self.serial or self.credential}"


class _Approved(msgspec.Struct, frozen=True):
    """An approval as its row keeps it."""

    knock: _Knock
    place: str
    approved_at: datetime
    operator: str
    reason: str

    @property
    def key(self) -> str:
        return f"{_APPROVAL}{self.place}"


class Newcomers:
    """Who may enter under which name: the configured stations, but for those whose place another one took.

    Args:
        is_live: whether a station is connected.
        vacate: ends a station's connection and returns when nothing of it is under way.
        renewed: another box stands behind a station; what was remembered of it is void.
    """

    def __init__(
        self,
        gate: SiteGate,
        clock: Clock,
        stations: Iterable[StationSettings],
        *,
        is_live: Callable[[StationId], bool],
        vacate: Callable[[StationId, str], Awaitable[None]],
        renewed: Callable[[StationId], None],
    ) -> None:
        self._gate = gate
        self._clock = clock
        self._stations = {station.id: station for station in stations}
        self._is_live = is_live
        self._vacate = vacate
        self._renewed = renewed
        self._knocks: OrderedDict[str, _Knock] = OrderedDict()
        self._approved: dict[StationId, _Approved] = {}
        self._unsaved: set[str] = set()
        self._saved_at: dict[str, float] = {}
        self._saves = Bucket(SAVES_PER_S, SAVES_BURST)
        self._saving: asyncio.Task[None] | None = None
        self._changing: set[StationId] = set()
        self._doors: Mapping[StationId, StationSettings] = {}
        self._load()

    # --- admission ---------------------------------------------------------------------------

    def station(self, name: StationId | None, listener: str) -> StationSettings | None:
        """Whose place the station of that name takes on this listener, and what it has to prove."""
        return by_id(self._doors, name, listener)

    def follow(self, stations: Iterable[StationSettings]) -> None:
        """Other stations are configured; who took the place of one that is still there keeps it."""
        self._stations = {station.id: station for station in stations}
        self._open_doors()

    def admits(self, settings: StationSettings) -> bool:
        """Whether these are the settings of who may be there now."""
        return any(door is settings for door in self._doors.values())

    def name_of(self, settings: StationSettings) -> str:
        """What the station that takes this place calls itself."""
        approved = self._holder(settings.id)
        return str(settings.id) if approved is None else approved.knock.station

    def knocked(self, name: StationId, listener: str, address: str, proof: Proof) -> None:
        """Remember a station that proved something and was refused."""
        now = self._clock.now()
        new = _Knock(
            station=str(name),
            listener=listener,
            profile=proof.profile,
            serial=proof.serial,
            credential=proof.credential,
            address=address,
            first_at=now,
            last_at=now,
            times=1,
            password_sha256=proof.password_sha256,
        )
        if any(approved.knock.key == new.key for approved in self._approved.values()):
            return
        known = self._knocks.pop(new.key, None)
        if known is not None:
            new = msgspec.structs.replace(new, first_at=known.first_at, times=known.times + 1)
        self._knocks[new.key] = new
        self._unsaved.add(new.key)
        same = [key for key, knock in self._knocks.items() if knock.listener == listener]
        for key in same[: max(0, len(same) - MAX_KNOCKS)]:
            self._drop(key)
        self._save_soon(new.key)

    async def flush(self) -> None:
        """Store what was not yet; what cannot be stored is said."""
        if self._saving is not None:
            await self._saving
        await self._save()

    # --- the operator's side ------------------------------------------------------------------

    def newcomers(self) -> Sequence[Newcomer]:
        """See the port."""
        return [
            Newcomer(
                StationId(k.station),
                k.listener,
                k.profile,
                k.serial,
                k.credential,
                k.address,
                k.first_at,
                k.last_at,
                k.times,
            )
            for k in sorted(self._knocks.values(), key=lambda k: k.last_at, reverse=True)
        ]

    def approvals(self) -> Sequence[Approval]:
        """See the port."""
        return [
            Approval(
                StationId(a.knock.station),
                place,
                a.knock.listener,
                a.knock.profile,
                a.knock.serial,
                a.knock.credential,
                a.approved_at,
                a.operator,
                a.reason,
            )
            for place, a in sorted(self._approved.items())
        ]

    async def approve(self, event: OperatorActed, inbound: Inbound, evse: NodeId, credential: str) -> Receipt:
        """See the port."""
        knock = self._knock(event.subject, credential)
        place = self._place(knock, evse)
        approved = _Approved(
            knock, str(place.id), event.message.received_at, event.message.actor.principal, event.reason
        )
        rows = (
            AdapterRow(ADAPTER, knock.key, None),
            AdapterRow(ADAPTER, approved.key, msgspec.json.encode(approved)),
        )
        receipt = await self._change(event, inbound, place, knock, rows)
        if receipt.verdict is Verdict.STORED:
            self._drop(knock.key)
            self._take(place.id, approved)
        return receipt

    async def revoke(self, event: OperatorActed, inbound: Inbound) -> Receipt:
        """See the port."""
        found = next((a for a in self._approved.values() if a.knock.station == event.subject), None)
        if found is None:
            raise ActionRefused(f"{event.subject} was never approved", hint="`gridgate station list` says who was")
        rows = (AdapterRow(ADAPTER, found.key, None),)
        place = self._stations.get(StationId(found.place))
        if place is None:
            receipt = await self._gate.submit([event], inbound=inbound, rows=rows)
        else:
            receipt = await self._change(event, inbound, place, found.knock, rows)
        if receipt.verdict is Verdict.STORED:
            self._take(StationId(found.place), None)
        return receipt

    def _knock(self, name: str, credential: str) -> _Knock:
        mine = [knock for knock in self._knocks.values() if knock.station == name]
        found = next((knock for knock in mine if knock.credential == credential), None)
        if found is not None:
            return found
        said = f"no station {name} with credential {credential[:64]} knocked" if mine else f"no station {name} knocked"
        raise ActionRefused(said, hint="`gridgate station list` says who did, and with what")

    def _place(self, knock: _Knock, evse: NodeId) -> StationSettings:
        """The configured station whose place the newcomer can take."""
        place = next((s for s in self._stations.values() if any(b.evse == evse for b in s.evses)), None)
        if place is None:
            raise ActionRefused(f'"{evse[:200]}" is no EVSE of a station here', hint="`gridgate tree` lists them")
        if knock.profile < place.profile:
            raise ActionRefused(
                f"{place.id} proves itself by security profile {place.profile}, {knock.station} by {knock.profile}",
                hint="a place is never given to one that proves less",
            )
        name = StationId(knock.station)
        taken = {StationId(a.knock.station) for a in self._approved.values()}
        if name in taken or (name in self._stations and name != place.id):
            raise ActionRefused(f"{name} has a place already", hint="revoke it, or change the configuration")
        if place.id in self._approved:
            holder = self._approved[place.id].knock.station
            raise ActionRefused(
                f"the place of {place.id} is that of {holder}", hint=f"`gridgate station revoke {holder}` frees it"
            )
        if self._is_live(place.id):
            raise ActionRefused(
                f"{place.id} is connected", hint="take it off the line first; a dead line ends by itself"
            )
        return place

    async def _change(
        self, event: OperatorActed, inbound: Inbound, place: StationSettings, knock: _Knock, rows: Sequence[AdapterRow]
    ) -> Receipt:
        """Put another box behind a station, in one commit. Until it is durable nobody enters that place."""
        if place.id in self._changing:
            raise ActionRefused(f"the place of {place.id} is changing hands just now", hint="look again in a second")
        self._changing.add(place.id)
        self._open_doors()
        try:
            if event.action is OperatorAction.REVOKE:
                await self._vacate(place.id, "revoked")
            told = dataclasses.replace(
                event, evses=tuple(binding.evse for binding in place.evses), detail=_detail(place, knock)
            )
            ended = self._ended(place, told)
            receipt = await self._gate.submit([told, *ended], inbound=inbound, rows=(*rows, *self._void(place.id)))
        finally:
            self._changing.discard(place.id)
            self._open_doors()
        if receipt.verdict is Verdict.STORED:
            self._renewed(place.id)
        return receipt

    def _ended(self, place: StationSettings, event: OperatorActed) -> list[SessionEnded]:
        """Transactions of the box that stood there: nobody else will end them."""
        evses = {binding.number: binding.evse for binding in place.evses}
        prefix, at = f"tx/{place.id}/", event.message.received_at
        rows = sorted(self._gate.adapter_rows(ADAPTER, prefix).items())
        running = [(key.removeprefix(prefix), msgspec.json.decode(row, type=OpenTransaction)) for key, row in rows]
        return [
            SessionEnded(evses[tx.number], name, at, event.message, reason=event.action.value)
            for name, tx in running
            if tx.number in evses
        ]

    def _void(self, station: StationId) -> list[AdapterRow]:
        """Deletions of what was true of the box that stood there."""
        known = self._gate.adapter_rows(ADAPTER)
        own = (f"boot/{station}", f"capability/{station}")
        return [AdapterRow(ADAPTER, key, None) for key in known if key in own or key.startswith(f"tx/{station}/")]

    def _take(self, place: StationId, approved: _Approved | None) -> None:
        if approved is None:
            self._approved.pop(place, None)
        else:
            self._approved[place] = approved
        self._open_doors()

    def _holder(self, place: StationId) -> _Approved | None:
        """Who took that place. A name that is configured elsewhere by now is that station's: the file wins."""
        approved = self._approved.get(place)
        if approved is None:
            return None
        name = StationId(approved.knock.station)
        return approved if name == place or name not in self._stations else None

    def _open_doors(self) -> None:
        """Who may enter under which name. Settings of a door that stays are the same object as before."""
        doors: dict[StationId, StationSettings] = {}
        for station in self._stations.values():
            if station.id in self._changing:
                continue
            approved = self._holder(station.id)
            settings = station if approved is None else _settings(station, approved.knock)
            name = station.id if approved is None else StationId(approved.knock.station)
            before = self._doors.get(name)
            doors[name] = before if before == settings and before is not None else settings
        self._doors = doors

    # --- rows --------------------------------------------------------------------------------

    def _load(self) -> None:
        for row in self._gate.adapter_rows(ADAPTER, _APPROVAL).values():
            approved = msgspec.json.decode(row, type=_Approved)
            self._approved[StationId(approved.place)] = approved
        let_in = {approved.knock.key for approved in self._approved.values()}
        rows = self._gate.adapter_rows(ADAPTER, _KNOCK).values()
        for knock in sorted((msgspec.json.decode(row, type=_Knock) for row in rows), key=lambda k: k.last_at):
            if knock.key not in let_in:
                self._knocks[knock.key] = knock
                self._saved_at[knock.key] = -SAVE_EVERY_S
        self._open_doors()

    def _drop(self, key: str) -> None:
        """Forget a newcomer, and its row where it has one."""
        self._knocks.pop(key, None)
        if key in self._saved_at:
            self._unsaved.add(key)
        else:
            self._unsaved.discard(key)

    def _save_soon(self, key: str) -> None:
        at = self._clock.monotonic()
        if self._saving is not None or at - self._saved_at.get(key, -SAVE_EVERY_S) < SAVE_EVERY_S:
            return
        if self._saves.take(at):
            self._saving = asyncio.get_running_loop().create_task(self._save(), name="ocpp-newcomers")
            self._saving.add_done_callback(self._save_ended)

    def _save_ended(self, _task: asyncio.Task[None]) -> None:
        self._saving = None

    async def _save(self) -> None:
        keys, self._unsaved = sorted(self._unsaved), set()
        if not keys:
            return
        at = self._clock.monotonic()
        found = {key: self._knocks.get(key) for key in keys}
        rows = [AdapterRow(ADAPTER, k, None if v is None else msgspec.json.encode(v)) for k, v in found.items()]
        self._saved_at |= dict.fromkeys(keys, at)
        try:
            await self._gate.submit([], rows=rows)
        except GatewayError as problem:
            self._unsaved.update(keys)
            _log.warning("newcomers are not stored (%s)", problem.code)
            return
        self._saved_at = {k: t for k, t in self._saved_at.items() if k in self._knocks or k in self._unsaved}


def _settings(place: StationSettings, knock: _Knock) -> StationSettings:
    """The place's settings, with what its new holder has to prove."""
    return dataclasses.replace(
        place,
        serial=knock.serial,
        listener=knock.listener,
        profile=knock.profile,
        password_sha256=knock.password_sha256,
    )


def _detail(place: StationSettings, knock: _Knock) -> tuple[tuple[str, str], ...]:
    return (
        ("place", str(place.id)),
        ("serial", knock.serial),
        ("listener", knock.listener),
        ("profile", str(knock.profile)),
        ("credential", knock.credential),
    )
