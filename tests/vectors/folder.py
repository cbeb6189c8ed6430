"""Where vector files live."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def find(name: str) -> Path:
    """A vector file, from ``GRIDGATE_VECTORS``, else beside the checkout, else the committed copy."""
    chosen = os.environ.get("GRIDGATE_VECTORS")
    if chosen:
        return Path(chosen) / name
    beside = ROOT.parent / "shared" / "vectors" / name
    return beside if beside.is_file() else ROOT / "tests" / "data" / name
