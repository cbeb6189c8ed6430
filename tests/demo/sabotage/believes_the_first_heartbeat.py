"""The gateway that takes up its old limit as soon as a lost source is heard again, without a fresh word."""

import sys

from gateway.app import envelopes
from gateway.app.envelopes import Surroundings
from gateway.cli import main
from gateway.domain.envelope import OperatingEnvelope, covering
from gateway.domain.lifecycle import Trigger

_from_fallback = envelopes._from_fallback


def _at_once(envelope: OperatingEnvelope, around: Surroundings) -> Trigger | None:
    if around.alive and covering(envelope.primary, around.now):
        return Trigger.RECOVERED
    return _from_fallback(envelope, around)


envelopes._from_fallback = _at_once  # the sabotage
sys.exit(main())
