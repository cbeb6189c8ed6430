"""The gateway with sources that live for ever once they were heard."""

import sys
from datetime import datetime

from gateway.app.state import Source
from gateway.cli import main


def _lives(self: Source, _now: datetime) -> bool:
    return not self.ended


Source.is_alive = _lives  # type: ignore[method-assign]  # the sabotage
sys.exit(main())
