"""What the file names outside itself: paths, and secrets behind references. Quotes no secret."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gateway.config.problems import Place, Problems
from gateway.kit.private import OTHERS

MIN_SECRET_CHARS = 16
"""A token or password is all that its bearer must show: 96 bits in base64url at the least."""

MAX_SECRET_BYTES = 4_096


class Files:
    """Paths are relative to ``folder``, where the configuration lies."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self._folder = folder
        self._problems = problems

    def path(self, text: str) -> Path:
        """``text`` as an absolute path."""
        return self._folder / text

    def existing(self, text: str | None, place: Place, *, private: bool = False) -> Path | None:
        """The path of a file that must be there; ``private`` ones are for their owner alone."""
        if text is None:
            return None
        path = self.path(text)
        self._mode(path, place, private=private)
        return path

    def planned(self, text: str, place: Place, *, private: bool = False) -> Path:
        """The path of a file that may be made later, in a folder that is there."""
        path = self.path(text)
        try:
            if not path.parent.is_dir():
                hint = "make it, or mend the path"
                self._problems.add(
                    "no-folder", place, "the folder is not there", found=str(path.parent), suggestion=hint
                )
            elif path.exists():
                self._mode(path, place, private=private)
        except OSError as problem:
            self._problems.add("file", place, f"cannot be looked at: {problem.strerror}", found=str(path))
        return path

    def secret(self, reference: str | None, place: Place) -> str | None:
        """The secret behind a reference; None where it does not resolve (a mistake is noted)."""
        if reference is None:
            return None
        scheme, _, name = reference.partition(":")
        if scheme == "env":
            text = os.environ.get(name)
            if text is None:
                self._problems.add("secret", place, f"the environment variable {name} is not set")
        else:
            text = self._secret_file(name, place)
        if text is not None and len(text) < MIN_SECRET_CHARS:
            expected = f"a secret of {MIN_SECRET_CHARS} characters or more is expected"
            self._problems.add("weak-secret", place, expected, found=f"{len(text)} characters")
            return None
        return text

    def _secret_file(self, name: str, place: Place) -> str | None:
        path = self.path(name)
        if not self._mode(path, place, private=True):
            return None
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SECRET_BYTES + 1)
            text = data.decode("utf-8").rstrip("\r\n")
        except OSError as problem:
            self._problems.add("secret", place, f"cannot be read: {problem.strerror}", found=str(path))
            return None
        except UnicodeDecodeError:
            self._problems.add("secret", place, "expected text in UTF-8", found=str(path))
            return None
        if len(data) > MAX_SECRET_BYTES or not text.isprintable():
            expected = f"expected one line of at most {MAX_SECRET_BYTES} bytes"
            self._problems.add("secret", place, expected, found=str(path))
            return None
        return text

    def _mode(self, path: Path, place: Place, *, private: bool) -> bool:
        """Whether ``path`` is a file, and where it is private, its owner's alone."""
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else str(problem)
            self._problems.add("no-file", place, f"cannot be found: {reason}", found=str(path))
            return False
        if not stat.S_ISREG(mode):
            self._problems.add("no-file", place, "is no regular file", found=str(path))
            return False
        if private and mode & OTHERS:
            found = f"{path} has mode {stat.S_IMODE(mode):04o}"
            text = "others than its owner may use this file"
            self._problems.add("file-mode", place, text, found=found, suggestion=f"chmod 600 {path}")
            return False
        return True
