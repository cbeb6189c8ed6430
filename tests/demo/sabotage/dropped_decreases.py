"""The gateway with an actuator that loses every decrease of a running session on its way to a station."""

import sys
from typing import Any

from adapters.ocpp.transport import OcppRunning
from gateway.cli import main
from gateway.domain.effects import Layer

_apply = OcppRunning.apply


def _lose_decreases(self: OcppRunning, command: Any) -> None:
    if not (command.tightens and command.layer is Layer.SESSION):
        _apply(self, command)


OcppRunning.apply = _lose_decreases  # type: ignore[method-assign]  # the sabotage
sys.exit(main())
