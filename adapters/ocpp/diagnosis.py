"""Which CALLERROR code a payload deserves, by the JSON schemas of the ``ocpp`` package.

Runs only after a decoder has refused a payload: it is exact and slow. Additional properties are no
fault here (lenient in, strict out).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from adapters.ocpp.wire import Version
from adapters.ocpp.wire.frames import ErrorCode

_PACKAGE = {Version.V16: "v16", Version.V201: "v201"}

_CODES = {
    "type": ErrorCode.TYPE,
    "enum": ErrorCode.PROPERTY,
    "maxLength": ErrorCode.PROPERTY,
    "minLength": ErrorCode.PROPERTY,
    "pattern": ErrorCode.PROPERTY,
    "format": ErrorCode.PROPERTY,
    "minimum": ErrorCode.PROPERTY,
    "maximum": ErrorCode.PROPERTY,
    "multipleOf": ErrorCode.PROPERTY,
    "minItems": ErrorCode.OCCURRENCE,
    "maxItems": ErrorCode.OCCURRENCE,
}


def diagnose(version: Version, action: str, payload: bytes) -> tuple[ErrorCode, str]:
    """Code and a text that names the place and the rule, never the value."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return ErrorCode.FORMAT, "the payload is no JSON"
    found = [
        error
        for error in _validator(version, action).iter_errors(document)
        if error.validator != "additionalProperties"
    ]
    if not found:
        return ErrorCode.TYPE, "the payload has a value of the wrong type"
    # What has the wrong type is no word of an enumeration either: the type says more.
    first = min(found, key=lambda e: (list(map(str, e.absolute_path)), str(e.validator) != "type", str(e.validator)))
    place = "/".join(map(str, first.absolute_path)) or "the payload"
    if first.validator == "required":
        code = ErrorCode.PROTOCOL if version is Version.V16 else ErrorCode.OCCURRENCE
        missing = sorted(set(first.validator_value) - set(first.instance))
        return code, f"{place} lacks {', '.join(missing)}"
    return _CODES.get(str(first.validator), ErrorCode.FORMAT), f"{place} breaks {first.validator}"


@cache
def _validator(version: Version, action: str) -> Any:
    # Heavy, and needed only once something is wrong.
    from jsonschema import (  # type: ignore[import-untyped]  # ships no types
        Draft4Validator,
        Draft6Validator,
    )

    suffix, validator = ("", Draft4Validator) if version is Version.V16 else ("Request", Draft6Validator)
    path = files("ocpp") / _PACKAGE[version] / "schemas" / f"{action}{suffix}.json"
    return validator(json.loads(path.read_bytes().decode("utf-8-sig")))
