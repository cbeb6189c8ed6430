"""Who may do what on the admin listener. Pure: a certificate's names in, yes or no out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.ids import NodeId
from gateway.kit.peer import PeerInfo

OPERATOR_URN = "urn:gridgate:operator:"
METER_URN = "urn:gridgate:meter:"

_OURS = "urn:gridgate:"


class Kind(StrEnum):
    """What a principal is. ``PEER`` has a certificate of this listener and no role here."""

    OPERATOR = "operator"
    METER = "meter"
    PEER = "peer"


class Action(StrEnum):
    """What a route does. Every route of the admin application declares one."""

    READ_HEALTH = "health.read"
    READ_SITE = "site.read"
    READ_METRICS = "metrics.read"
    READ_API = "api.read"
    WRITE_MEASUREMENTS = "measurements.write"
    OPERATE = "site.operate"


_READS = frozenset({Action.READ_HEALTH, Action.READ_SITE, Action.READ_METRICS, Action.READ_API})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a certificate says it is. ``nodes`` are those whose meter it is."""

    kind: Kind
    name: str
    nodes: frozenset[NodeId] = frozenset()


def principal_of(peer: PeerInfo, meters: Mapping[str, NodeId]) -> Principal | None:
    """The principal behind a connection; None without a certificate.

    A certificate that carries several of our names has none: which one it acts under would be
    a guess.
    """
    if not peer.cert_sha256:
        return None
    names = [uri for uri in peer.san_uris if uri.startswith(_OURS)]
    if len(names) != 1:
        return Principal(Kind.PEER, peer.cert_sha256)
    name = names[0]
    if name.startswith(OPERATOR_URN) and name != OPERATOR_URN:
        return Principal(Kind.OPERATOR, name)
    if name.startswith(METER_URN) and name != METER_URN:
        own = meters.get(name)
        return Principal(Kind.METER, name, frozenset() if own is None else frozenset({own}))
    return Principal(Kind.PEER, name)


def decide(principal: Principal | None, action: Action, resource: NodeId | None = None) -> bool:
    """Whether ``principal`` may do ``action``; whatever is not allowed here is refused.

    ``resource`` None means the site as a whole; for writing it asks whether there is any node
    at all that the principal may write to.
    """
    if principal is None:
        return False
    if action is Action.READ_HEALTH:
        return True
    if principal.kind is Kind.OPERATOR:
        return action in _READS or action is Action.OPERATE
    if principal.kind is Kind.METER and action is Action.WRITE_MEASUREMENTS:
        return bool(principal.nodes) if resource is None else resource in principal.nodes
    return False
