"""An operator puts another station behind an EVSE: what the ledger makes of it."""

from __future__ import annotations

from gateway.app.explain import explain
from gateway.domain import events as ev
from gateway.domain.evidence import Actor, MessageRef
from gateway.domain.ids import NodeId, PeerId
from tests.unit.app.builders import Driver, at, forecast, heartbeat

E1, E2 = (NodeId(f"main/garage/evse-{n}") for n in (1, 2))
MOST_W = 22_080
ALICE = Actor("operator", "urn:gridgate:operator:alice", "admin")


def acted(action: ev.OperatorAction, *evses: NodeId) -> ev.OperatorActed:
    message = MessageRef(PeerId("alice"), f"admin/{action.value}/NEW-7", "r1", at(1), actor=ALICE)
    return ev.OperatorActed(action, "NEW-7", "replaced", message, evses, (("place", "CP-1"), ("serial", "SN-7")))


def a_site() -> Driver:
    """Two proven stations with a session each."""
    driver = Driver()
    driver.step(heartbeat(600), forecast((0, 600, 40_000)))
    driver.connect(1, 2)
    driver.plug(1, 2)
    driver.run_to(1)
    return driver


def shown(driver: Driver, evse: NodeId = E1) -> dict:
    return explain(driver.controller.facts, driver.state, evse, driver.now)


def test_an_approved_station_counts_at_its_most_until_it_has_accepted_a_limit() -> None:
    driver = a_site()
    assert shown(driver)["proven"] is True
    assert shown(driver)["worst_case_w"] < MOST_W
    driver.step(ev.StationDisconnected("CP-1", 1, "taken away"))
    driver.step(acted(ev.OperatorAction.APPROVE, E1))
    after = shown(driver)
    assert (after["proven"], after["worst_case_w"], after["installed_w"]) == (False, MOST_W, None)
    driver.obey = False
    driver.generation = 2
    driver.connect(1)
    assert shown(driver)["worst_case_w"] == MOST_W
    share = next(c for c in driver.commands[::-1] if c.evse == E1)
    driver.obey = True
    driver.answer(share)
    assert shown(driver)["proven"] is True
    assert shown(driver)["worst_case_w"] < MOST_W


def test_others_make_room_for_it_at_once() -> None:
    driver = a_site()
    before = shown(driver, E2)["target_w"]
    driver.step(ev.StationDisconnected("CP-1", 1, "taken away"))
    driver.step(acted(ev.OperatorAction.APPROVE, E1))
    assert shown(driver, E2)["target_w"] < before
    assert shown(driver, E2)["worst_case_w"] + MOST_W <= 40_000


def test_versions_of_commands_go_on_so_that_none_repeats() -> None:
    driver = a_site()
    version = driver.state.grants[E1].version
    driver.step(acted(ev.OperatorAction.APPROVE, E1))
    assert driver.state.grants[E1].version >= version


def test_a_revocation_leaves_the_place_unproven_too() -> None:
    driver = a_site()
    driver.step(ev.StationDisconnected("CP-1", 1, "revoked"), acted(ev.OperatorAction.REVOKE, E1))
    assert (shown(driver)["proven"], shown(driver)["worst_case_w"]) == (False, MOST_W)
    assert shown(driver, E2)["proven"] is True


def test_evidence_says_who_which_station_where_and_why() -> None:
    driver = a_site()
    driver.step(acted(ev.OperatorAction.APPROVE, E1))
    [entry] = [e for e in driver.evidence if e.type == "operator.acted"]
    assert entry.subject["station"] == "NEW-7"
    assert entry.subject["evse"] == E1
    assert entry.subject["operator"] == "urn:gridgate:operator:alice"
    assert entry.body == {
        "action": "station.approve", "why": "replaced", "place": "CP-1", "serial": "SN-7", "evses": [E1],
    }  # fmt: skip


def test_a_session_of_the_old_station_is_concluded() -> None:
    driver = a_site()
    driver.obey = False
    act = acted(ev.OperatorAction.APPROVE, E1)
    driver.step(act, ev.SessionEnded(E1, "tx-1", at(1), act.message, reason="station.approve"))
    assert E1 not in driver.state.sessions
    [ended] = [e for e in driver.evidence if e.type == "session.ended"]
    assert ended.body["reason"] == "station.approve"
    assert shown(driver)["worst_case_w"] == MOST_W
