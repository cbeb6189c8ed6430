"""The gateway with an actuator that loses every decrease of a running session on its way to a station.

It does so from 18:05 on, when the cars have been brought to the announced cut.
"""

import sys
from datetime import time
from typing import Any

from adapters.ocpp.transport import OcppRunning
from gateway.cli import main
from gateway.domain.effects import Layer

SINCE = time(18, 5)
_apply = OcppRunning.apply


def _lose_decreases(self: OcppRunning, command: Any) -> None:
    begins = command.schedule.steps[0].start.time()
    if not (command.tightens and command.layer is Layer.SESSION and begins >= SINCE):
        _apply(self, command)


OcppRunning.apply = _lose_decreases  # type: ignore[method-assign]  # the sabotage
sys.exit(main())
