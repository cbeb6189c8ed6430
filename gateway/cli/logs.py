"""Logs of a running gateway: one JSON object a line on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

MAX_FIELD = 1_000
"""Characters of one field; a peer's text cannot fill the disk by one line."""

MAX_TRACE = 20_000
"""Characters of a stack trace."""

QUIET = ("httpx", "httpcore", "websockets", "alembic", "uvicorn", "asyncio", "sqlalchemy")
"""Libraries whose routine work is not ours to tell."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """``at`` is the machine's time, whatever clock a story runs on."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MAX_FIELD],
        }
        for key, value in vars(record).items():
            if key not in _STANDARD and key not in line:
                line[key] = value if isinstance(value, (bool, int, float)) else str(value)[:MAX_FIELD]
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)[-MAX_TRACE:]
        return json.dumps(line)


def to_stderr(level: str, stream: TextIO | None = None) -> None:
    """Send every log there."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
