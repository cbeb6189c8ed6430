"""What one station holds: proof of limits, foreign profiles, and what follows from both. No I/O.

The theory: a limit leaves, the station accepts it, the composite schedule agrees. Where it allows
more, whatever may stand above ours is cleared once per connection and the station is asked again;
where it still allows more, the limit stays in doubt and the EVSE counts as unproven.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from adapters.ocpp.core import fate, leftovers
from adapters.ocpp.core.actions import Memory
from adapters.ocpp.core.intake import Facts
from adapters.ocpp.core.proof import Proof, Verdict, number_of
from adapters.ocpp.core.quirks import Effect
from adapters.ocpp.core.setup import HOUSEKEEPING
from adapters.ocpp.session import Ended, Fate, Request
from adapters.ocpp.translate.composite import Excess, held_by
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.wire import Version, v201
from gateway.domain.effects import Command, Layer
from gateway.domain.events import ClaimRefuted, CommandAnswered, Event, Outcome
from gateway.ports.fleet import StationSettings

RESEND = "resend"
"""Tag of a limit that is sent again: its answer is nobody's fate."""

_NOT_INSTALLED = frozenset({Outcome.REJECTED, Outcome.ERROR, Outcome.SUPERSEDED, Outcome.NOT_SENT})


@dataclass(frozen=True, slots=True)
class Follow:
    """What is to be done: CALLs to queue, events to tell, and remarks, which may be dropped."""

    requests: tuple[Request, ...] = ()
    events: tuple[Event, ...] = ()
    remarks: tuple[Event, ...] = ()


class Holding:
    """One connection's view of its station's profiles."""

    def __init__(
        self,
        version: Version,
        settings: StationSettings,
        generation: int,
        memory: Memory,
        capability: Callable[[], Capability],
        effect: Callable[[], Effect],
    ) -> None:
        self._version = version
        self._settings = settings
        self._generation = generation
        self._memory = memory
        self._capability = capability
        self._effect = effect
        self._under_way: dict[tuple[int, Layer], set[str]] = {}
        self._accepted: dict[tuple[int, Layer], Request] = {}
        self._ask_again: set[int] = set()
        self._paused: set[int] = set()
        self._proof = Proof(version, settings.evses, memory.distrusted)
        self._swept = self._sweeping = False
        self._resending = 0
        self._cleared = 0

    def sent(self, command: Command, payload: bytes) -> None:
        """A limit is on its way."""
        self._under_way.setdefault((self._number(command), command.layer), set()).add(str(command.id))
        held = held_by(self._version, payload)
        if held is not None:
            self._proof.sent(command, self._number(command), held)

    def session_over(self, number: int) -> None:
        """A transaction took its profiles with it."""
        self._accepted.pop((number, Layer.SESSION), None)
        self._paused.discard(number)
        self._proof.session_over(number)

    def paused(self, number: int, *, paused: bool) -> Follow:
        """The station stands still by its limit, or goes on.

        Quirk ``resend_after_pause``: what it accepted last is sent again, unless something newer is
        on its way; the same schedule under the same id changes nothing for a station without it.
        """
        if paused:
            self._paused.add(number)
            return Follow()
        goes_on = number in self._paused
        self._paused.discard(number)
        if not goes_on or not self._effect().resend_after_pause:
            return Follow()
        return Follow(self._again((number, Layer.SESSION)))

    def look(self) -> Follow:
        """Ask a 2.0.1 station for everything that may overrule us; 1.6 has no such message."""
        requests = [] if self._version is Version.V16 else leftovers.read_profiles(self._generation)
        return Follow(tuple(requests))

    def recheck(self) -> Follow:
        """Prove everything again."""
        if self._effect().skip_proof:
            return Follow()
        return Follow(tuple(self._ask(number, HOUSEKEEPING) for number in self._proof.numbers()))

    def answered(self, command: Command, ended: Ended, facts: Facts) -> Follow:
        """A limit's fate; the first ``Accepted`` of a layer waits for the composite schedule."""
        answer = fate.of_command(self._version, command, ended)
        number = self._number(command)
        self._under_way[number, command.layer].discard(str(command.id))
        if answer.outcome is Outcome.ACCEPTED:
            self._accepted[number, command.layer] = replace(ended.request, tag=RESEND, priority=0, weighty=False)
        accepted = answer.outcome is Outcome.ACCEPTED
        harmless = answer.outcome in _NOT_INSTALLED
        self._proof.ended(command, number, accepted=accepted, harmless=harmless, ordered=answer.ordered)
        if accepted and self._effect().skip_proof:
            return self._believed(answer, facts)
        if not accepted or not self._proof.wants(command, number, self._running(number)):
            return Follow(events=(answer,), remarks=self._hints(answer.outcome, facts))
        self._proof.claim(command, number, ended)
        return Follow((self._ask(number, 0),))

    def _believed(self, answer: CommandAnswered, facts: Facts) -> Follow:
        """Quirk ``skip_proof``: its word counts, which is said once per connection.

        As with a station that has no composite schedule, what may stand above ours is cleared.
        """
        if self._swept:
            return Follow(events=(answer,))
        note = facts.noted("station.proof-skipped", "SetChargingProfile", **self._memory.about)
        return Follow(self._sweep(), (answer,), (note,))

    def ended(self, ended: Ended, facts: Facts) -> Follow:
        """A CALL of ours ended: a limit sent again, the last one of a sweep, or a composite schedule."""
        if ended.request.tag == RESEND:
            self._resending -= 1
            return Follow()
        if ended.fate in (Fate.SUPERSEDED, Fate.DISCONNECTED):
            return Follow()
        if ended.request.tag == leftovers.SWEPT:
            return Follow(self._after_sweep())
        return self._proven(ended, facts)

    def _proven(self, ended: Ended, facts: Facts) -> Follow:
        was_silent = self._proof.silent
        running = self._running(number_of(ended.request.tag))
        verdict = self._proof.answered(ended, running, facts.now, self._memory.skew_s or 0)
        if verdict.excess is not None:
            return self._exceeded(verdict, verdict.excess, facts)
        of_claim = fate.of_proven if verdict.proven else fate.of_command
        events = tuple(of_claim(self._version, c.command, c.ended) for c in verdict.claims)
        if self._proof.silent == was_silent:
            return Follow(events=events)
        word = ended.detail or ended.fate.value
        note = facts.noted("station.no-composite", "GetCompositeSchedule", answer=word)
        return Follow(self._sweep(), events, (note,))

    def reported(self, report: v201.ReportChargingProfilesRequest, facts: Facts) -> Follow:
        """K09: what the station holds; what is not ours and allows more is cleared."""
        found = leftovers.foreign(report, self._settings.evses, self._proof.share_of)
        found = found[: max(0, leftovers.MAX_CLEARED - self._cleared)]
        self._cleared += len(found)
        notes = [
            facts.noted(
                "station.foreign-profile",
                "ReportChargingProfiles",
                profile=held.id,
                purpose=held.purpose,
                evse=held.number,
                level=held.level,
                source=report.charging_limit_source,
            )
            for held in found
        ]
        return Follow(tuple(leftovers.clear(self._version, held) for held in found), remarks=tuple(notes))

    def lost(self) -> tuple[Event, ...]:
        """The line is gone: what was not proven stays in doubt."""
        return tuple(
            fate.of_lost(claim.command, replace(claim.ended, fate=Fate.DISCONNECTED, detail="not proven"))
            for claim in self._proof.claims()
        )

    def _hints(self, outcome: Outcome, facts: Facts) -> tuple[Event, ...]:
        hint = self._effect().hint
        if outcome is not Outcome.REJECTED or not hint:
            return ()
        return (facts.noted("station.hint", "SetChargingProfile", hint=hint),)

    def _exceeded(self, verdict: Verdict, found: Excess, facts: Facts) -> Follow:
        number = verdict.number
        if not self._swept or self._sweeping or self._resending:
            for claim in verdict.claims:
                self._proof.claim(claim.command, number, claim.ended)
            if self._swept and not self._sweeping:
                # Ours are on their way again: what it says before they arrive proves nothing.
                return Follow((self._ask(number, HOUSEKEEPING),))
            self._ask_again.add(number)
            return Follow(self._sweep())
        words = {
            "from_s": str(found.offset_s),
            "allowed": f"{found.allowed:g} {verdict.unit}",
            "reported": f"{found.reported:g} {verdict.unit}",
        }
        note = facts.noted("station.composite-mismatch", "GetCompositeSchedule", evse=number, **words)
        evse = next(binding.evse for binding in self._settings.evses if binding.number == number)
        refuted = ClaimRefuted(evse, self._generation, tuple(words.items()))
        fates = (fate.of_unproven(c.command, c.ended, found, verdict.unit) for c in verdict.claims)
        return Follow(events=(refuted, *fates), remarks=(note,))

    def _sweep(self) -> tuple[Request, ...]:
        """Once per connection: clear what may stand above ours."""
        if self._swept:
            return ()
        self._swept = self._sweeping = True
        requests = leftovers.sweep(self._version, self._capability().max_level)
        return tuple(requests) or self._after_sweep()

    def _after_sweep(self) -> tuple[Request, ...]:
        """Send ours again, for a station that clears more than it was told to; then look again."""
        self._sweeping = False
        asks = tuple(self._ask(number, HOUSEKEEPING) for number in sorted(self._ask_again))
        self._ask_again.clear()
        return (*(again for place in self._accepted for again in self._again(place)), *asks)

    def _again(self, place: tuple[int, Layer]) -> tuple[Request, ...]:
        """What was accepted last, unless something newer waits to be sent."""
        last = self._accepted.get(place)
        if last is None or self._under_way.get(place):
            return ()
        self._resending += 1
        return (last,)

    def _ask(self, number: int, priority: int) -> Request:
        return self._proof.ask(number, self._capability().unit, priority)

    def _running(self, number: int) -> str | None:
        """The transaction on a connector or EVSE."""
        return next((key for key, tx in self._memory.transactions.items() if tx.number == number), None)

    def _number(self, command: Command) -> int:
        return next(binding.number for binding in self._settings.evses if binding.evse == command.evse)
