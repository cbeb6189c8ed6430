"""Messages and frames of OCPP-J exactly as specified. No I/O, no clock.

``v16`` and ``v201`` are generated (see ``codegen.py``); ``frames`` is the RPC layer around them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType

import msgspec

from adapters.ocpp.wire import v16, v201


class Version(StrEnum):
    """A protocol version under its WebSocket subprotocol."""

    V16 = "ocpp1.6"
    V201 = "ocpp2.0.1"

    @property
    def label(self) -> str:
        """Version number alone."""
        return self.value.removeprefix("ocpp")


REQUESTS: Mapping[Version, Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {Version.V16: v16.REQUESTS, Version.V201: v201.REQUESTS}
)
RESPONSES: Mapping[Version, Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {Version.V16: v16.RESPONSES, Version.V201: v201.RESPONSES}
)

_encoder = msgspec.json.Encoder()


@cache
def request_decoder(version: Version, action: str) -> msgspec.json.Decoder[msgspec.Struct]:
    """Decoder of a CALL's payload; KeyError for an action that the version does not have."""
    return msgspec.json.Decoder(REQUESTS[version][action])


@cache
def response_decoder(version: Version, action: str) -> msgspec.json.Decoder[msgspec.Struct]:
    """Decoder of a CALLRESULT's payload; KeyError for an unknown action."""
    return msgspec.json.Decoder(RESPONSES[version][action])


def encode(message: msgspec.Struct) -> bytes:
    """JSON of a message; absent optional fields are left out."""
    return _encoder.encode(message)
