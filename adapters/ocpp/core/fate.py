"""How a limit ended: which answers are certain, and which leave it in doubt. No I/O."""

from __future__ import annotations

from dataclasses import replace

from adapters.ocpp.core import setup
from adapters.ocpp.core.intake import clean
from adapters.ocpp.session import NEVER_SENT, Ended, Fate
from adapters.ocpp.translate.composite import Excess
from adapters.ocpp.wire import Version
from gateway.domain.effects import Command
from gateway.domain.events import CommandAnswered, Outcome

_REFUSALS = frozenset(
    {
        "NotImplemented",
        "NotSupported",
        "SecurityError",
        "ProtocolError",
        "FormatViolation",
        "FormationViolation",
        "PropertyConstraintViolation",
        "OccurrenceConstraintViolation",
        "OccurenceConstraintViolation",
        "TypeConstraintViolation",
        "RpcFrameworkError",
        "MessageTypeNotSupported",
    }
)
"""CALLERRORs of a station that did not act. After any other one a limit may be installed."""

_OUTCOMES = {
    Fate.TIMEOUT: Outcome.TIMEOUT,
    Fate.SUPERSEDED: Outcome.SUPERSEDED,
    Fate.OVERFLOW: Outcome.NOT_SENT,
}


def of_command(version: Version, command: Command, ended: Ended) -> CommandAnswered:
    """The fate of a limit by its answer; what is no clear answer leaves it in doubt, like silence."""
    if ended.fate is Fate.FAULT:
        certain = ended.detail.partition(":")[0] in _REFUSALS
        outcome = Outcome.ERROR if certain else Outcome.TIMEOUT
        return _answered(command, outcome, replace(ended, ordered=ended.ordered and certain))
    if ended.fate is not Fate.ANSWERED:
        return _answered(command, _OUTCOMES.get(ended.fate, Outcome.DISCONNECTED), ended)
    good, word = setup.accepted(version, ended.request.action, ended.payload)
    if word == setup.UNREADABLE:
        return _answered(command, Outcome.TIMEOUT, replace(ended, detail=word, ordered=False))
    return _answered(command, Outcome.ACCEPTED if good else Outcome.REJECTED, replace(ended, detail=word))


def of_proven(version: Version, command: Command, ended: Ended) -> CommandAnswered:
    """Accepted, and the station's composite schedule says the same."""
    answer = of_command(version, command, ended)
    return replace(answer, detail=clean(f"{answer.detail}, its composite schedule agrees"))


def of_unproven(command: Command, ended: Ended, found: Excess, unit: str) -> CommandAnswered:
    """Accepted, and not what the station says that it allows: in doubt, like silence."""
    detail = f"accepted, but it allows {found.reported:g} {unit}, not {found.allowed:g}"
    return _answered(command, Outcome.TIMEOUT, replace(ended, detail=detail, ordered=False))


def of_lost(command: Command, ended: Ended) -> CommandAnswered:
    """The line is gone: what was never written reached nobody, the rest may be installed."""
    never = ended.detail == NEVER_SENT
    return _answered(command, Outcome.NOT_SENT if never else Outcome.DISCONNECTED, ended)


def not_sent(command: Command, detail: str) -> CommandAnswered:
    """It never left."""
    return CommandAnswered(command.id, command.evse, command.generation, Outcome.NOT_SENT, True, clean(detail))


def _answered(command: Command, outcome: Outcome, ended: Ended) -> CommandAnswered:
    latency = None if ended.latency_s is None else round(ended.latency_s * 1000)
    return CommandAnswered(
        command.id, command.evse, command.generation, outcome, ended.ordered, clean(ended.detail), latency
    )
