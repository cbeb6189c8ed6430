"""What a station may hold of ours, and whether what it says agrees. No I/O.

A limit is believed by itself only once its layer has been proven on this connection: until then
the answer ``Accepted`` waits for the composite schedule. A station that gives none is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from adapters.ocpp.session import Ended, Fate, Request
from adapters.ocpp.translate.composite import (
    Excess,
    Held,
    Piece,
    Window,
    ask_composite,
    composite,
    excess,
    highest,
    read_composite,
)
from adapters.ocpp.wire import Version
from gateway.domain.effects import Command, Layer
from gateway.ports.fleet import EvseBinding

HORIZON_S = 3_600
"""How far ahead a station is asked: past a session's schedule, into the share after it."""

DEADLINE_S = 5.0
"""For the composite schedule; a limit's fate waits for it."""

RECHECK_S = 86_400.0
"""How often everything is proven again (design §4, rule 10)."""

MAX_UNHELPFUL = 3
"""Answers without a schedule before a station is asked no more on this connection."""

MAX_DOUBTFUL = 8
"""Schedules of one layer in doubt that are told apart; older ones are forgotten."""

TAG = "composite"


@dataclass
class _Layer:
    """``sure`` was accepted last; ``doubtful`` were sent, and may or may not have arrived."""

    sure: Held | None = None
    doubtful: dict[str, Held] = field(default_factory=dict)
    proven: bool = False

    def candidates(self) -> list[Held]:
        return [*([self.sure] if self.sure else []), *self.doubtful.values()]


@dataclass(frozen=True, slots=True)
class Claim:
    """A limit that its station accepted, and that waits for proof."""

    command: Command
    ended: Ended


@dataclass(frozen=True, slots=True)
class Verdict:
    """``excess`` None: what the station says agrees, as far as it says something; ``proven``: it did."""

    number: int
    claims: tuple[Claim, ...]
    excess: Excess | None
    unit: str = "A"
    proven: bool = False


class Proof:
    """One connection's book of profiles. Numbers are the station's own: connector or EVSE."""

    def __init__(self, version: Version, bindings: tuple[EvseBinding, ...], distrusted: set[int]) -> None:
        self._version = version
        self._bindings = {binding.number: binding for binding in bindings}
        self._layers: dict[tuple[int, Layer], _Layer] = {}
        self._claims: dict[int, list[Claim]] = {}
        self._distrusted = distrusted
        self._unhelpful = 0

    @property
    def silent(self) -> bool:
        """Whether the station tells no composite schedule: then its word has to do."""
        return self._unhelpful >= MAX_UNHELPFUL

    def sent(self, command: Command, number: int, held: Held) -> None:
        """A limit is on its way."""
        layer = self._layer(number, command.layer)
        layer.doubtful[str(command.id)] = held
        while len(layer.doubtful) > MAX_DOUBTFUL:
            del layer.doubtful[next(iter(layer.doubtful))]

    def ended(self, command: Command, number: int, *, accepted: bool, harmless: bool, ordered: bool) -> None:
        """Its fate. ``harmless``: it certainly was not installed."""
        layer = self._layer(number, command.layer)
        held = layer.doubtful.get(str(command.id))
        if accepted and held is not None:
            before = list(layer.doubtful)
            older = before[: before.index(str(command.id))] if ordered else []
            for name in (*older, str(command.id)):
                del layer.doubtful[name]
            layer.sure = held
        elif harmless:
            layer.doubtful.pop(str(command.id), None)

    def session_over(self, number: int) -> None:
        """A transaction took its profiles with it."""
        self._layers.pop((number, Layer.SESSION), None)

    def wants(self, command: Command, number: int, running: str | None) -> bool:
        """Whether an accepted limit needs proof before it counts."""
        layer = self._layer(number, command.layer)
        open_question = number in self._distrusted or not layer.proven
        return not self.silent and open_question and self._knows(number, running)

    def claim(self, command: Command, number: int, ended: Ended) -> None:
        """Keep the fate of a limit until the proof is there."""
        self._claims.setdefault(number, []).append(Claim(command, ended))

    def claims(self) -> Iterator[Claim]:
        """Everything that waits; it waits no longer."""
        for waiting in self._claims.values():
            yield from waiting
        self._claims = {}

    def ask(self, number: int, unit: str, priority: int) -> Request:
        """Ask for the composite schedule; a later question takes the place of a waiting one."""
        payload = ask_composite(self._version, number, HORIZON_S, unit)
        return Request(
            f"{TAG}/{number}/{unit}",
            "GetCompositeSchedule",
            payload,
            priority,
            key=f"{TAG}/{number}",
            deadline_s=DEADLINE_S,
        )

    def answered(self, ended: Ended, running: str | None, now: datetime, ahead_s: int = 0) -> Verdict:
        """What the answer to :meth:`ask` proves.

        ``running``: the transaction on that EVSE. ``ahead_s``: by how much the station's clock is
        known to be ahead: its answer speaks of its own time.
        """
        number, unit = number_of(ended.request.tag), ended.request.tag.rpartition("/")[2]
        claims = tuple(self._claims.pop(number, ()))
        window = Window(now, HORIZON_S, unit, float(self._bindings[number].voltage_v))
        theirs = replace(window, start=now + timedelta(seconds=ahead_s))
        reported = read_composite(self._version, ended.payload, theirs) if ended.payload else None
        if reported is None:
            # A refusal may hold for now alone; silence and CALLERROR hold for good.
            self._unhelpful += 1 if ended.fate is Fate.ANSWERED else MAX_UNHELPFUL
            return Verdict(number, claims, None, unit)
        if not self._knows(number, running):
            return Verdict(number, claims, None, unit)
        found = excess(reported, self.expected(number, window, running), window)
        if found is None:
            self._distrusted.discard(number)
            for (other, _), layer in self._layers.items():
                layer.proven |= other == number and layer.sure is not None
        else:
            self._distrusted.add(number)
        return Verdict(number, claims, found, unit, proven=found is None)

    def expected(self, number: int, window: Window, running: str | None) -> tuple[Piece, ...]:
        """The most that may be installed of ours at every instant of the window."""
        shares: list[Held | None] = [*self._layer(number, Layer.SAFE_SHARE).candidates()]
        layer = self._layer(number, Layer.SESSION)
        sessions: list[Held | None] = [*layer.candidates()] if running is not None else []
        if layer.sure is None:
            sessions.append(None)
        combined = [
            composite([p for p in (share, session) if p is not None], number, window, transaction=running)
            for share in shares
            for session in sessions
        ]
        return highest(combined)

    def share_of(self, number: int) -> Held | None:
        """The permanent share that was accepted last."""
        return self._layer(number, Layer.SAFE_SHARE).sure

    def numbers(self) -> list[int]:
        """Connectors or EVSEs whose share is known to be installed."""
        return sorted(number for number in self._bindings if self.share_of(number) is not None)

    def _knows(self, number: int, running: str | None) -> bool:
        """Whether enough is known to judge: a share, and while a transaction runs its schedule."""
        session = self._layers.get((number, Layer.SESSION))
        return self.share_of(number) is not None and (
            running is None or (session is not None and session.sure is not None)
        )

    def _layer(self, number: int, layer: Layer) -> _Layer:
        return self._layers.setdefault((number, layer), _Layer())


def number_of(tag: str) -> int:
    """The connector or EVSE of a question's tag."""
    return int(tag.split("/")[1])
