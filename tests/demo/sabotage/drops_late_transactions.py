"""The gateway that acknowledges transactions which began while it was away, and records none of them."""

import sys
from datetime import timedelta

from gateway.app import site
from gateway.app.state import Work
from gateway.cli import main
from gateway.domain.events import SessionStarted

LATE = timedelta(seconds=15)
_started = site._HANDLERS[SessionStarted]


def _only_news(work: Work, event: SessionStarted) -> None:
    if work.now - event.started_at < LATE:
        _started(work, event)


site._HANDLERS[SessionStarted] = _only_news  # the sabotage
sys.exit(main())
