"""What a station may hold: the grant ledger's rules, each as a sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from gateway.app.ledger import worst_case_w
from gateway.app.site import Controller
from gateway.app.state import Settings, SiteFacts
from gateway.domain import events as ev
from gateway.domain.effects import Layer
from gateway.domain.evidence import GATEWAY
from gateway.domain.ids import NodeId, StationId
from gateway.domain.measurement import Quantity
from gateway.domain.topology import Tree
from tests.unit.app.builders import Driver, a_tree, at, forecast, heartbeat, message, power

E1 = "main/garage/evse-1"


def worst(driver: Driver, index: int = 1) -> int:
    node = driver.tree.node(NodeId(f"main/garage/evse-{index}"))
    return worst_case_w(driver.state.grants[node.path], node.evse, driver.now, driver.settings, 0)


def a_busy_site(limit_w: int = 30_000, evses: int = 2) -> Driver:
    driver = Driver(tree=a_tree(evses))
    driver.step(heartbeat(600), forecast((0, 600, limit_w)))
    driver.connect(*range(1, evses + 1))
    driver.plug(*range(1, evses + 1))
    return driver


def test_a_station_never_proven_counts_at_everything_it_can_draw() -> None:
    driver = Driver()
    assert worst(driver) == 22_080


def test_a_connected_station_is_told_its_permanent_share_first() -> None:
    driver = Driver()
    driver.connect(1)
    first = driver.commands[0]
    assert (first.layer, first.schedule.floor_w, first.schedule.edges) == (Layer.SAFE_SHARE, 4140, ())
    assert worst(driver) == 4140


def test_a_command_counts_from_the_moment_it_is_decided_and_until_it_is_resolved() -> None:
    driver = a_busy_site()
    driver.obey = False
    before = worst(driver)
    driver.step(forecast((0, 600, 50_000), ident="more"), now=at(1))
    raised = next(c for c in driver.last.commands if c.evse == E1)
    assert not raised.tightens
    assert worst(driver) == raised.schedule.at(driver.now) > before
    driver.answer(raised, ev.Outcome.TIMEOUT)
    assert worst(driver) == raised.schedule.at(driver.now)


def test_an_increase_waits_until_the_decrease_that_makes_room_is_confirmed_and_followed() -> None:
    driver = Driver(tree=a_tree(2))
    driver.step(heartbeat(600), forecast((0, 600, 30_000)))
    driver.connect(1, 2)
    driver.plug(1)
    assert driver.target(1) == 17_860
    driver.obey = False
    driver.now = at(2)
    driver.plug(2)
    sent = {c.evse: c.tightens for c in driver.last.commands}
    assert sent == {E1: True}
    driver.obey = True
    driver.answer(driver.last.commands[0])
    assert driver.commands[-1].evse == E1, "a car takes its time to follow"
    driver.run_to(2 + driver.settings.guard_s / 60)
    assert driver.commands[-1].evse == "main/garage/evse-2"
    assert driver.target(1) == driver.target(2) == 11_000


def test_every_schedule_falls_only_and_ends_in_the_open_ended_share() -> None:
    driver = a_busy_site()
    driver.step(forecast((10, 20, 20_000), ident="cut"), now=at(1))
    session_commands = [c for c in driver.commands if c.layer is Layer.SESSION]
    assert session_commands
    for command in session_commands:
        assert command.schedule.never_rises
        assert command.schedule.floor_w == 4140


def test_a_cut_inside_a_schedule_is_placed_early_by_the_guard() -> None:
    driver = a_busy_site()
    driver.step(forecast((10, 20, 20_000), ident="cut"), now=at(1))
    command = next(c for c in reversed(driver.commands) if c.layer is Layer.SESSION)
    guard = timedelta(seconds=driver.settings.guard_s)
    assert at(10) - guard in command.schedule.edges


def test_what_an_old_connection_carried_stays_possible_until_it_ends_by_itself() -> None:
    driver = a_busy_site(limit_w=20_000, evses=1)
    driver.obey = False
    driver.step(forecast((0, 600, 50_000), ident="more"), now=at(1))
    raised = driver.last.commands[0]
    driver.answer(raised, ev.Outcome.DISCONNECTED)
    driver.generation = 2
    driver.obey = True
    driver.connect(1)
    assert worst(driver) >= raised.schedule.at(driver.now)


def test_silence_makes_a_station_uncommandable_and_the_others_make_room() -> None:
    driver = a_busy_site(limit_w=40_000)
    driver.run_to(0.9)
    driver.obey = False
    driver.step(forecast((0, 600, 30_000), ident="less"), now=at(1))
    cuts = {c.evse: c for c in driver.last.commands}
    driver.answer(cuts["main/garage/evse-2"])
    driver.run_to(1 + (driver.settings.confirm_s + 1) / 60)
    assert driver.state.grants[E1].uncommandable_since is not None
    assert "device.uncommandable" in driver.types()
    driver.obey = True
    for command in [c for c in driver.commands if c.evse == "main/garage/evse-2"][-1:]:
        driver.answer(command)
    driver.step(ev.DeadlineReached(), now=driver.now + timedelta(seconds=driver.settings.guard_s))
    assert worst(driver, 1) + worst(driver, 2) + 8_000 <= 30_000 or worst(driver, 2) == 4140


def test_an_unanswered_command_is_tried_again() -> None:
    driver = a_busy_site(limit_w=20_000, evses=1)
    driver.obey = False
    driver.step(forecast((0, 600, 15_000), ident="less"), now=at(1))
    count = len(driver.commands)
    driver.run_to(1 + (driver.settings.confirm_s + driver.settings.retry_s + 1) / 60)
    assert len(driver.commands) > count


def test_a_late_answer_to_an_earlier_command_does_not_forget_the_decrease_that_was_lost_after_it() -> None:
    driver = a_busy_site(limit_w=40_000)
    driver.run_to(0.9)
    driver.obey = False
    first = next(c for c in driver.step(forecast((0, 600, 30_000), ident="less"), now=at(1)) if c.evse == E1)
    driver.step(forecast((0, 600, 8_000), ident="nothing but the house"), now=at(1.1))
    driver.run_to(1.1 + (driver.settings.confirm_s + 1) / 60)
    driver.answer(first)
    count = len(driver.commands)
    driver.run_to(1.1 + (driver.settings.confirm_s + driver.settings.retry_s + 1) / 60)
    again = [c for c in driver.commands[count:] if c.evse == E1 and c.layer is Layer.SESSION]
    assert [c.schedule.at(driver.now) for c in again] == [0]


def test_a_session_that_ends_before_its_command_is_answered_leaves_nothing_due_for_ever() -> None:
    driver = a_busy_site(limit_w=20_000, evses=1)
    driver.obey = False
    driver.step(forecast((0, 600, 50_000), ident="more"), now=at(1))
    driver.step(ev.SessionEnded(NodeId(E1), "tx-1", at(1.1), forecast((0, 1, 1)).message), now=at(1.1))
    assert worst(driver) > 4140
    driver.run_to(1 + (driver.settings.confirm_s + 1) / 60)
    assert worst(driver) == 4140
    driver.run_to(1 + (driver.settings.confirm_s + driver.settings.retry_s + 1) / 60)
    assert driver.last.commands == () and driver.commands[-1].layer is Layer.SAFE_SHARE
    driver.answer(driver.commands[-1])
    assert driver.state.grants[E1].uncommandable_since is None


def test_a_draw_above_everything_a_station_may_hold_is_a_lie_and_counts_at_its_most() -> None:
    driver = a_busy_site(limit_w=20_000)
    driver.run_to(2)
    driver.step(power(E1, 21_000, at(2)), now=at(2))
    assert driver.state.grants[E1].lying
    assert worst(driver) == 22_080
    assert "device.lying" in driver.types()


def test_an_ended_session_leaves_the_share_alone() -> None:
    driver = a_busy_site(limit_w=20_000, evses=1)
    driver.step(ev.SessionEnded(NodeId(E1), "tx-1", at(1), forecast((0, 1, 1)).message), now=at(1))
    assert worst(driver) == 4140
    assert "session.outcome" in driver.types()


def test_a_restart_counts_everything_that_was_on_its_way() -> None:
    driver = a_busy_site(limit_w=20_000, evses=1)
    driver.obey = False
    driver.step(forecast((0, 600, 50_000), ident="more"), now=at(1))
    raised = driver.last.commands[0]
    driver.step(ev.GatewayStarted(2, "boot2", False, "cfg"))
    assert worst(driver) >= raised.schedule.at(driver.now)
    assert not driver.state.stations["CP-1"].connected


def test_another_station_at_an_evse_is_not_proven_by_what_the_one_before_it_held() -> None:
    driver = a_busy_site(limit_w=40_000)
    driver.run_to(0.9)
    before = worst(driver), worst(driver, 2)
    assert max(before) < 22_080
    nodes = dict(driver.tree.nodes)
    nodes[NodeId(E1)] = replace(nodes[NodeId(E1)], evse=replace(nodes[NodeId(E1)].evse, station=StationId("CP-9")))
    driver.tree = Tree(driver.tree.site, nodes, "t2")
    driver.controller = Controller(SiteFacts(driver.tree, {}, {}, driver.settings))
    driver.step(ev.GatewayStarted(2, "boot2", False, "cfg2"), now=at(1))
    assert worst(driver) == 22_080
    assert E1 not in driver.state.sessions and "evse.reassigned" in driver.types()
    assert worst(driver, 2) == before[1], "the other one is what it was"


def test_shares_fall_where_a_known_block_could_not_hold_them_all() -> None:
    driver = Driver(tree=a_tree(3))
    driver.step(heartbeat(600), forecast((0, 600, 17_000)))
    driver.connect(1, 2, 3)
    floors = [driver.state.grants[f"main/garage/evse-{i}"].share.confirmed.floor_w for i in (1, 2, 3)]
    assert floors == [4140, 4140, 0]


def test_where_shares_must_fall_those_who_can_be_told_make_room_for_those_who_cannot() -> None:
    driver = Driver(tree=a_tree(3))
    driver.step(heartbeat(600), forecast((0, 600, 30_000)))
    driver.connect(1, 2, 3)
    driver.step(ev.StationDisconnected(StationId("CP-3"), driver.generation, "gone"))
    driver.step(forecast((30, 60, 17_000), ident="less"), now=at(1))
    floors = [driver.state.grants[f"main/garage/evse-{i}"].share.confirmed.floor_w for i in (1, 2, 3)]
    assert floors == [4140, 0, 4140]


def test_a_schedule_that_ran_out_goes_on_to_hold_its_share_until_the_session_goes_by_another() -> None:
    driver = a_busy_site(limit_w=20_000, evses=1)
    driver.obey = False
    driver.step(forecast((0, 600, 50_000), ident="more"), now=at(1))
    driver.step(ev.StationDisconnected(StationId("CP-1"), driver.generation, "gone"))
    driver.run_to(45)
    driver.step(forecast((44, 60, 10_000), ident="least"))
    assert worst(driver) == 4140
    driver.generation = 2
    driver.connect(1)
    assert {c.layer: c.schedule.floor_w for c in driver.last.commands} == {Layer.SAFE_SHARE: 0, Layer.SESSION: 0}
    share, session = driver.last.commands
    driver.answer(share)
    assert worst(driver) == 4140
    driver.answer(session)
    driver.step(ev.DeadlineReached(), now=driver.now + timedelta(seconds=driver.settings.guard_s))
    assert worst(driver) == 0


def test_a_share_that_falls_is_told_at_once_even_to_a_station_that_did_not_answer_before() -> None:
    driver = a_busy_site(limit_w=20_000, evses=1)
    driver.obey = False
    driver.step(forecast((0, 600, 15_000), ident="less"), now=at(1))
    driver.run_to(1 + (driver.settings.confirm_s + 1) / 60)
    assert driver.state.grants[E1].uncommandable_since is not None
    driver.step(forecast((30, 60, 10_000), ident="least"))
    assert {c.layer: c.schedule.floor_w for c in driver.last.commands} == {Layer.SAFE_SHARE: 0, Layer.SESSION: 0}
    driver.step(ev.DeadlineReached())
    assert driver.last.commands == ()


def test_a_load_without_model_lets_nothing_rise() -> None:
    settings = Settings()
    assert settings.guard_s > 0
    driver = a_busy_site()
    driver.step(power("main/house", 25_000, at(1)), now=at(1))
    assert driver.target(1) + driver.target(2) <= 30_000 - 25_000 or driver.target(1) == 4140


def test_a_decrease_whose_command_died_with_the_gateway_is_sent_again_on_the_next_connection() -> None:
    driver = a_busy_site(limit_w=60_000)
    driver.obey = False
    driver.step(forecast((0, 600, 10_000), ident="cut"))
    assert any(c.tightens and c.layer is Layer.SESSION for c in driver.commands), "the cut is commanded"
    driver.commands.clear()
    driver.step(ev.GatewayStarted(2, "boot2", False, "cfg"), now=at(1))
    driver.obey, driver.generation = True, 2
    driver.connect(1, 2)
    told = {c.evse: c.schedule.at(driver.now) for c in driver.commands if c.layer is Layer.SESSION}
    assert len(told) == 2, "also the station whose target is its share or less is told"
    assert sum(told.values()) <= 2_000


def test_a_decrease_is_told_once_also_where_an_old_connection_left_something_open() -> None:
    driver = a_busy_site(limit_w=60_000)
    driver.obey = False
    driver.step(forecast((0, 600, 50_000), ident="first"))
    driver.step(ev.GatewayStarted(2, "boot2", False, "cfg"), now=at(1))
    driver.obey, driver.generation = True, 2
    driver.connect(1, 2)
    driver.commands.clear()
    driver.step(forecast((0, 600, 30_000), ident="second"), now=at(2))
    told = [c.evse for c in driver.commands]
    assert sorted(told) == sorted(set(told)), "what was confirmed since is what we last asked for"


def a_followed_car(limit_w: int = 50_000) -> Driver:
    driver = a_busy_site(limit_w=limit_w)
    driver.run_to(5)
    driver.step(power(E1, driver.target(1), at(5)), now=at(5))
    return driver


def test_a_liar_is_found_also_while_small_decreases_keep_coming() -> None:
    driver = a_followed_car()
    for second in range(0, 60, 10):
        now = at(5 + second / 60)
        driver.step(power("main/house", 9_000 + 20 * second, now), now=now)
        driver.step(power(E1, 22_000, now), now=now)
    assert driver.types().count("device.lying") == 1
    assert driver.state.grants[E1].lying


def test_a_draw_from_before_a_session_ended_is_no_lie_though_its_last_command_was_never_answered() -> None:
    driver = a_followed_car()
    held = driver.target(1)
    driver.obey, driver.generation = False, 2
    driver.step(ev.StationDisconnected(StationId("CP-1"), 1, "reboot"), now=at(5.1))
    driver.step(ev.StationConnected(StationId("CP-1"), 2, "ocpp1.6", GATEWAY), now=at(5.1))
    driver.step(ev.SessionEnded(NodeId(E1), "tx-1", at(5.1), message("stop")), now=at(5.12))
    driver.run_to(5.5)
    assert "device.uncommandable" in driver.types()
    late = ev.Sample(NodeId(E1), Quantity.P, held, at(5.05), at(5.52))
    driver.step(ev.TelemetryTick((late,), "late"), now=at(5.52))
    assert not driver.state.grants[E1].lying


def test_a_draw_from_before_a_decrease_is_no_lie_until_it_should_have_settled() -> None:
    driver = a_followed_car()
    held = driver.target(1)
    driver.step(forecast((0, 600, 20_000), ident="cut"), now=at(5.1))
    assert driver.target(1) < held
    driver.step(power(E1, held, at(5.4)), now=at(5.4))
    assert not driver.state.grants[E1].lying
    driver.step(power(E1, held, at(6)), now=at(6))
    assert driver.state.grants[E1].lying


def test_what_a_car_drew_when_it_left_is_no_lie() -> None:
    driver = a_followed_car()
    driver.step(ev.SessionEnded(NodeId(E1), "tx-1", at(5.1), message("stop")), now=at(5.1))
    driver.step(power("main/house", 9_000, at(5.2)), now=at(5.2))
    driver.run_to(8)
    assert not driver.state.grants[E1].lying


def test_a_car_that_draws_more_than_the_share_alone_is_a_liar_too() -> None:
    driver = Driver(tree=a_tree(1))
    driver.connect(1)
    driver.run_to(2)
    driver.step(power(E1, 11_000, at(2)), now=at(2))
    assert driver.state.grants[E1].lying


def test_a_station_that_rejects_its_session_limit_is_asked_again_after_a_while_and_not_at_once() -> None:
    driver = a_busy_site(limit_w=60_000)
    driver.obey = False
    driver.step(forecast((0, 600, 10_000), ident="cut"))
    driver.step(ev.GatewayStarted(2, "boot2", False, "cfg"), now=at(1))
    driver.generation = 2
    driver.commands.clear()
    driver.connect(1, 2)
    answered = 0
    while answered < len(driver.commands):
        assert len(driver.commands) < 20, "it is asked again and again at one instant"
        command = driver.commands[answered]
        answered += 1
        rejected = command.layer is Layer.SESSION
        driver.answer(command, ev.Outcome.REJECTED if rejected else ev.Outcome.ACCEPTED)
    before = len(driver.commands)
    driver.run_to(2)
    assert len(driver.commands) > before, "and after the retry time it is"


def test_a_replaced_schedule_counts_until_a_car_has_had_its_time_to_follow() -> None:
    driver = a_busy_site(limit_w=40_000)
    driver.run_to(0.9)
    before = worst(driver)
    driver.step(forecast((0, 600, 30_000), ident="less"), now=at(1))
    assert driver.state.grants[E1].session.confirmed.at(driver.now) < before
    assert worst(driver) == before
    driver.step(ev.DeadlineReached(), now=at(1) + timedelta(seconds=driver.settings.guard_s))
    assert worst(driver) == 11_000


def test_a_station_that_did_not_answer_falls_to_its_share_at_once_where_a_limit_needs_it() -> None:
    driver = a_busy_site(limit_w=40_000, evses=1)
    driver.run_to(0.9)
    driver.obey = False
    driver.step(forecast((0, 600, 28_000), ident="less"), now=at(1))
    driver.run_to(1 + (driver.settings.confirm_s + 1) / 60)
    assert driver.state.grants[E1].uncommandable_since is not None
    command = driver.commands[-1]
    assert (command.layer, command.schedule.at(driver.now), command.tightens) == (Layer.SESSION, 4_140, True)


def test_what_is_measured_to_be_drawn_counts_and_gives_no_right_to_it() -> None:
    driver = a_busy_site(limit_w=40_000)
    driver.run_to(1.9)
    held = driver.state.grants[E1].session.confirmed.at(driver.now)
    driver.step(forecast((2, 600, 30_000), ident="less"), power(E1, held, at(2)), now=at(2))
    driver.run_to(2.5)
    assert driver.state.grants[E1].session.confirmed.at(driver.now) == 11_000
    assert all(c.schedule.at(driver.now) <= 11_000 for c in driver.last.commands)


def test_a_station_whose_clock_is_off_by_more_than_the_guard_gets_its_share_alone() -> None:
    driver = a_busy_site(limit_w=40_000)
    driver.run_to(1)
    driver.generation, driver.obey = 2, False
    driver.step(ev.StationConnected(StationId("CP-1"), 2, "ocpp1.6", GATEWAY, clock_skew_s=60))
    assert "device.clock_wrong" in driver.types()
    node = driver.tree.node(NodeId(E1))
    late = worst_case_w(driver.state.grants[E1], node.evse, at(600), driver.settings, 0)
    assert late == 16_000, "no time in its schedule means anything: its end neither"
    driver.obey = True
    for command in driver.last.commands:
        driver.answer(command)
    driver.run_to(5)
    assert all(not c.schedule.edges for c in driver.commands if c.generation == 2 and c.evse == E1)
    assert driver.target(1) == 4_140


def test_a_station_whose_clock_is_right_again_is_trusted_again() -> None:
    driver = a_busy_site(limit_w=40_000, evses=1)
    for generation, skew_s in ((2, 60), (3, 2)):
        driver.generation = generation
        driver.step(ev.StationConnected(StationId("CP-1"), generation, "ocpp1.6", GATEWAY, clock_skew_s=skew_s))
        driver.run_to(generation)
    assert driver.target(1) == 22_080


def test_a_share_that_may_be_installed_makes_others_room_even_when_it_was_never_proven() -> None:
    driver = Driver(tree=a_tree(3))
    driver.step(heartbeat(600), forecast((0, 600, 30_000)))
    driver.connect(1, 2)
    driver.obey = False
    driver.connect(3)
    driver.run_to((driver.settings.confirm_s + 1) / 60)
    driver.obey = True
    driver.step(forecast((30, 60, 17_000), ident="less"))
    floors = [driver.state.grants[f"main/garage/evse-{i}"].share.confirmed for i in (1, 2, 3)]
    assert [f and f.floor_w for f in floors] == [4140, 0, None]


def test_what_would_fall_within_half_the_validity_is_renewed_before_it_does() -> None:
    """Also where the schedule goes on to fall later for a limit that lies ahead."""
    driver = a_busy_site(limit_w=30_000, evses=1)
    driver.step(forecast((44, 60, 9_000), ident="ahead"), now=at(1))
    end = driver.state.grants[E1].session.confirmed.edges[0]
    lowest = []
    while driver.now < end + timedelta(minutes=1):
        driver.run_to((driver.now - at(0)) / timedelta(minutes=1) + 0.5)
        driver.step(heartbeat(600))
        lowest.append(driver.state.grants[E1].session.confirmed.at(driver.now))
    assert min(lowest) == lowest[0]


def test_a_share_that_had_to_fall_is_given_back_when_all_known_limits_fit_it_again() -> None:
    driver = Driver(tree=a_tree(3))
    driver.step(heartbeat(600), forecast((0, 30, 17_000), (30, 600, 60_000)))
    driver.connect(1, 2, 3)

    def floors() -> list[int]:
        return [driver.state.grants[f"main/garage/evse-{i}"].share.confirmed.floor_w for i in (1, 2, 3)]

    assert floors() == [4140, 4140, 0]
    driver.step(forecast((30, 40, 25_000), ident="later"), now=at(29))
    assert floors() == [4140, 4140, 0]
    driver.step(ev.DeadlineReached(), now=at(30))
    assert floors() == [4140, 4140, 4140]
    assert not driver.commands[-1].tightens


def test_a_share_is_not_given_back_while_another_may_still_hold_what_it_should_have_left() -> None:
    driver = Driver(tree=a_tree(3))
    driver.step(heartbeat(600), forecast((0, 30, 17_000), (30, 600, 60_000)))
    driver.connect(1, 2, 3)
    driver.step(ev.StationDisconnected(StationId("CP-2"), driver.generation, "gone"))
    driver.step(forecast((40, 50, 8_000 + 2 * 4_140), ident="two"), now=at(31))
    assert driver.state.grants["main/garage/evse-3"].share.confirmed.floor_w == 0
