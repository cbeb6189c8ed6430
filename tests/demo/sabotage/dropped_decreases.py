"""The gateway with an actuator that loses every decrease on its way to a station."""

import sys
from typing import Any

from adapters.ocpp.transport import OcppRunning
from gateway.cli import main

_apply = OcppRunning.apply


def _lose_decreases(self: OcppRunning, command: Any) -> None:
    if not command.tightens:
        _apply(self, command)


OcppRunning.apply = _lose_decreases  # type: ignore[method-assign]  # the sabotage
sys.exit(main())
