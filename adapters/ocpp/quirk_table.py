"""Reads ``quirks.yaml`` beside this file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

from adapters.ocpp.core.quirks import Quirk


@cache
def quirks() -> tuple[Quirk, ...]:
    """The table; a mistake in it raises ``msgspec.ValidationError``, and a test reads it."""
    # Heavy, and needed once.
    from ruamel.yaml import YAML

    text = (files("adapters.ocpp") / "quirks.yaml").read_text(encoding="utf-8")
    return tuple(msgspec.convert(YAML(typ="safe").load(text), list[Quirk]))
