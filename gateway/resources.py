"""Files that ship beside the code, and the one command that remakes what is generated.

An adapter's module may offer ``schemas()`` (path below ``schemas/`` to bytes: what its message
models generate) and ``sources()`` (path from the repository's root to bytes: generated modules).
They are found through entry points: nothing here knows an adapter by name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from gateway.domain.errors import LocalError

ENTRY_POINTS = "gridgate.adapters"

CHECKOUT = Path(__file__).resolve().parent.parent
"""The repository's root, where this is a checkout."""

_SCHEMAS = "schemas"


def schema(name: str) -> Traversable | Path:
    """A schema file: inside the package when installed, in ``schemas/`` in a checkout."""
    installed = files("gateway") / "_schemas" / name
    return installed if installed.is_file() else CHECKOUT / _SCHEMAS / name


def generated(points: Sequence[EntryPoint] | None = None) -> dict[str, bytes]:
    """Every generated file: path from the repository's root to the content that it should have.

    Raises:
        LocalError: two adapters make the same file, or one leaves its place.
    """
    out: dict[str, bytes] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS) if points is None else points, key=lambda p: p.name):
        for path, content in _offered(point):
            if path in out or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise LocalError(f"adapter {point.name} may not make {path}")
            out[path] = content
    return out


def drift(wanted: Mapping[str, bytes], root: Path = CHECKOUT) -> list[str]:
    """What differs between ``wanted`` and the files: missing, changed, or made by nobody."""
    problems = []
    for path, content in sorted(wanted.items()):
        file = root / path
        if not file.is_file():
            problems.append(f"missing: {path}")
        elif file.read_bytes() != content:
            problems.append(f"changed: {path}")
    return problems + [f"made by nobody: {path}" for path in _strays(wanted, root)]


def write(wanted: Mapping[str, bytes], root: Path = CHECKOUT) -> list[str]:
    """Make the files as ``wanted``; names those that were touched."""
    touched = []
    for path, content in sorted(wanted.items()):
        file = root / path
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            touched.append(path)
    for path in _strays(wanted, root):
        (root / path).unlink()
        touched.append(path)
    return touched


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m gateway.resources --write | --check``: 0 when all is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m gateway.resources", description="generated files")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="remake them")
    action.add_argument("--check", action="store_true", help="say what differs; exit code 1 if anything does")
    chosen = parser.parse_args(arguments)
    if not (CHECKOUT / "pyproject.toml").is_file():
        sys.stderr.write("generated files are remade in a checkout, not in an installation\n")
        return 2
    wanted = generated()
    lines = [f"wrote: {path}" for path in write(wanted)] if chosen.write else drift(wanted)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if chosen.check and lines else 0


def _offered(point: EntryPoint) -> Iterator[tuple[str, bytes]]:
    module = import_module(point.module)
    for name, folder in (("schemas", f"{_SCHEMAS}/"), ("sources", "")):
        offer: Callable[[], Mapping[str, bytes]] | None = getattr(module, name, None)
        if offer is not None:
            for path, content in offer().items():
                yield folder + path, content


def _strays(wanted: Mapping[str, bytes], root: Path) -> list[str]:
    """JSON files below ``schemas/`` that no adapter makes any more."""
    found = (root / _SCHEMAS).rglob("*.json") if (root / _SCHEMAS).is_dir() else ()
    return sorted(str(path) for file in found if (path := file.relative_to(root).as_posix()) not in wanted)


if __name__ == "__main__":
    sys.exit(main())
