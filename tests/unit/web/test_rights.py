from __future__ import annotations

import pytest

from gateway.domain.ids import NodeId
from gateway.kit.peer import PeerInfo
from gateway.web.rights import Action, Kind, Principal, decide, principal_of

MAIN, HOUSE = NodeId("main"), NodeId("main/house")
OPERATOR = Principal(Kind.OPERATOR, "urn:gridgate:operator:alice")
METER = Principal(Kind.METER, "urn:gridgate:meter:main", frozenset({MAIN}))
LOOSE_METER = Principal(Kind.METER, "urn:gridgate:meter:lost")
PEER = Principal(Kind.PEER, "urn:gridgate:party:dso")

READS = [Action.READ_SITE, Action.READ_METRICS, Action.READ_API]


@pytest.mark.parametrize("action", READS)
def test_reading_is_for_operators_alone(action: Action) -> None:
    assert [decide(p, action) for p in (OPERATOR, METER, LOOSE_METER, PEER, None)] == [True, False, False, False, False]


def test_health_is_for_everybody_with_a_certificate() -> None:
    allowed = [decide(p, Action.READ_HEALTH) for p in (OPERATOR, METER, LOOSE_METER, PEER, None)]
    assert allowed == [True, True, True, True, False]


def test_only_an_operator_operates() -> None:
    allowed = [decide(p, Action.OPERATE) for p in (OPERATOR, METER, LOOSE_METER, PEER, None)]
    assert allowed == [True, False, False, False, False]


@pytest.mark.parametrize(("resource", "allowed"), [(MAIN, True), (HOUSE, False), (None, True)])
def test_a_meter_writes_its_own_node_only(resource: NodeId | None, allowed: bool) -> None:
    assert decide(METER, Action.WRITE_MEASUREMENTS, resource) is allowed


@pytest.mark.parametrize("principal", [OPERATOR, LOOSE_METER, PEER, None])
@pytest.mark.parametrize("resource", [MAIN, None])
def test_nobody_else_writes(principal: Principal | None, resource: NodeId | None) -> None:
    assert not decide(principal, Action.WRITE_MEASUREMENTS, resource)


@pytest.mark.parametrize(
    ("uris", "kind"),
    [
        (("urn:gridgate:operator:alice",), Kind.OPERATOR),
        (("https://example.org", "urn:gridgate:operator:alice"), Kind.OPERATOR),
        (("urn:gridgate:operator:",), Kind.PEER),
        (("urn:gridgate:meter:main",), Kind.METER),
        (("urn:gridgate:meter:",), Kind.PEER),
        (("urn:gridgate:party:dso",), Kind.PEER),
        (("urn:gridgate:operator:a", "urn:gridgate:meter:main"), Kind.PEER),
        (("URN:GRIDGATE:OPERATOR:alice",), Kind.PEER),
        ((), Kind.PEER),
    ],
)
def test_a_principal_comes_from_exactly_one_name(uris: tuple[str, ...], kind: Kind) -> None:
    found = principal_of(PeerInfo("admin", "::1", cert_sha256="ab", san_uris=uris), {"urn:gridgate:meter:main": MAIN})
    assert found is not None
    assert found.kind is kind
    assert found.nodes == (frozenset({MAIN}) if kind is Kind.METER else frozenset())


def test_without_a_certificate_there_is_no_principal() -> None:
    assert principal_of(PeerInfo("admin", "::1", san_uris=("urn:gridgate:operator:alice",)), {}) is None
