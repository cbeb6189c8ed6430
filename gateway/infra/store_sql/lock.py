"""One process per store: an advisory lock that the kernel drops when the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.domain.errors import StoreError


class StoreLock:
    """Holds ``<store>.lock`` until :meth:`release`.

    Raises:
        StoreError: ``store.locked``: another process has it.
    """

    def __init__(self, path: Path) -> None:
        lock = path.with_name(path.name + ".lock")
        try:
            self._handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise StoreError(f"{lock} cannot be created: {problem}", code="store.unwritable") from problem
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(self._handle)
            raise StoreError(
                f"{path} is in use by another process", code="store.locked", hint="stop the other gateway first"
            ) from problem

    def release(self) -> None:
        """Let others have it."""
        os.close(self._handle)
