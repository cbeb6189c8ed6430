"""Every error raised on purpose, in one tree. Nothing here does I/O.

GatewayError                     has a stable ``code`` and a ``hint``: what to do about it
├── DomainError                  the request contradicts the model
│   ├── IllegalTransition        no such step in the lifecycle
│   ├── UnknownNode · UnknownGroup · UnknownEnvelope
│   ├── ActionRefused            an operator's wish that does not fit the state
│   ├── InvalidTopology          carries the reason code of the validation rule
│   ├── InvalidBlock             a limit block that means nothing
│   ├── InfeasibleAllocation     the problem handed to the allocator is not one
│   └── NotUtc
├── PeerError                    the other side broke its protocol
│   ├── MalformedMessage         carries the protocol's own error code
│   ├── ProtocolViolation        right shape, wrong moment
│   └── NotAuthorised
├── LocalError                   we were about to break it: a bug of ours
├── TransportError               nobody broke anything; the line did
│   ├── PeerUnreachable · PeerTimeout
│   └── TlsFailure               which check failed, which certificate
├── StoreError                   durable state not reached
│   └── EvidenceError            the log does not verify
└── ConfigError                  file, line, key, what was expected
"""

from __future__ import annotations

from dataclasses import dataclass


class GatewayError(Exception):
    """Base of all. ``str()`` says what and where; ``hint`` says what to do."""

    code: str = "gateway.error"
    hint: str = ""

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        if hint is not None:
            self.hint = hint


class DomainError(GatewayError):
    """The request contradicts the model."""

    code = "domain.error"


class IllegalTransition(DomainError):
    """A lifecycle step that the table does not have; nothing changed."""

    code = "domain.illegal-transition"

    def __init__(self, state: object, trigger: object) -> None:
        super().__init__(f"cannot {trigger} in state {state}")


class UnknownNode(DomainError):
    """No such node in the tree."""

    code = "domain.unknown-node"


class UnknownGroup(DomainError):
    """A grid party addressed a group that is bound to nothing here."""

    code = "domain.unknown-group"


class UnknownEnvelope(DomainError):
    """No such envelope."""

    code = "domain.unknown-envelope"


class ActionRefused(DomainError):
    """An operator's wish that means nothing in the present state; nothing changed."""

    code = "domain.action-refused"


class InvalidTopology(DomainError):
    """The tree is refused as a whole."""

    code = "domain.invalid-topology"


class InvalidBlock(DomainError):
    """A limit block that means nothing: end before start, negative value."""

    code = "domain.invalid-block"


class InfeasibleAllocation(DomainError):
    """The allocator was handed something that is no problem of its kind."""

    code = "domain.infeasible-allocation"


class NotUtc(DomainError):
    """An instant without zone, or with an offset other than zero."""

    code = "domain.not-utc"


class PeerError(GatewayError):
    """The other side broke its protocol."""

    code = "peer.error"


class MalformedMessage(PeerError):
    """Wrong shape. ``wire_code`` is the protocol's own code when it has one."""

    code = "peer.malformed-message"

    def __init__(self, message: str, *, wire_code: str = "", code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.wire_code = wire_code


class ProtocolViolation(PeerError):
    """Right shape, wrong moment."""

    code = "peer.protocol-violation"


class NotAuthorised(PeerError):
    """Known or not, this peer may not do that."""

    code = "peer.not-authorised"


class LocalError(GatewayError):
    """We were about to break the protocol: a bug of ours."""

    code = "local.error"


class TransportError(GatewayError):
    """Nobody broke anything; the line did."""

    code = "transport.error"


class PeerUnreachable(TransportError):
    """No connection."""

    code = "transport.peer-unreachable"


class PeerTimeout(TransportError):
    """A connection, and no answer in time."""

    code = "transport.peer-timeout"


class TlsFailure(TransportError):
    """TLS said no; the message names the check and the certificate."""

    code = "transport.tls-failure"


class StoreError(GatewayError):
    """Durable state was not reached; the caller must not acknowledge."""

    code = "store.error"
    hint = "check free space and permissions of the store's folder; nothing was acknowledged"


class EvidenceError(StoreError):
    """The evidence log does not verify."""

    code = "store.evidence"
    hint = "keep the files as they are and run `gridgate evidence verify --json`"


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One mistake in a configuration file.

    ``line`` counts from 1; 0 means the file as a whole.
    """

    code: str
    file: str
    line: int
    key: str
    message: str
    found: str = ""
    suggestion: str = ""


class ConfigError(GatewayError):
    """All mistakes of a configuration at once."""

    code = "config.invalid"
    hint = "mend the lines named above, then run `gridgate check FILE`"

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        super().__init__(f"{len(problems)} mistake(s) in the configuration")
        self.problems = problems
