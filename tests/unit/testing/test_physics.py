import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.testing
from gateway.testing.physics import Announcement, BuildingLoad, Draw, LimitBlock, LimitBook, Physics, Register

SIX = datetime(2031, 3, 1, 18, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return SIX + timedelta(seconds=seconds)


def said(when: float, *blocks: tuple[float, float, float]) -> Announcement:
    return Announcement(at(when), at(when + 1), tuple(LimitBlock(at(a), at(b), w) for a, b, w in blocks))


def a_site(limit_w: float, draw_w: float) -> Physics:
    draws = [
        Draw("main/house", lambda _: 2_000.0, lambda _: 2_000.0, controllable=False),
        Draw("main/garage/one", lambda _: draw_w, lambda _: 11_000.0),
    ]
    return Physics({"main": LimitBook(limit_w), "main/garage": LimitBook(8_000.0)}, draws)


def test_a_cut_announced_ahead_has_no_grace() -> None:
    book = LimitBook(60_000)
    book.announce(said(-600, (0, 1200, 35_000)))
    assert book.permitted_w(at(-1)) == 60_000
    assert book.permitted_w(at(0)) == 35_000


def test_a_cut_with_immediate_effect_has_the_reaction_time() -> None:
    book = LimitBook(60_000)
    book.announce(said(-600, (0, 1200, 35_000)))
    book.announce(said(100, (100, 1200, 30_000)))
    assert book.permitted_w(at(160.9)) == 35_000
    assert book.permitted_w(at(161)) == 30_000
    assert book.announced_w(at(102)) == 30_000


def test_a_raised_limit_may_be_used_from_the_moment_it_was_sent() -> None:
    book = LimitBook(60_000)
    book.announce(said(-600, (0, 1200, 30_000)))
    book.announce(said(100, (100, 1200, 40_000)))
    assert book.permitted_w(at(99)) == 30_000
    assert book.permitted_w(at(100)) == 40_000


def test_what_was_sent_and_is_not_acknowledged_yet_may_be_known_and_need_not() -> None:
    book = LimitBook(60_000)
    book.announce(said(-600, (0, 1200, 30_000)))
    book.announce(Announcement(at(100), None, (LimitBlock(at(100), at(1200), 40_000),)))
    assert (book.permitted_w(at(100)), book.announced_w(at(100))) == (40_000, 30_000)
    assert book.permitted_w(at(99)) == 30_000
    book.acknowledged(at(101))
    assert book.announced_w(at(102)) == 40_000


def test_a_cut_need_not_be_kept_before_it_was_acknowledged() -> None:
    book = LimitBook(60_000)
    book.announce(Announcement(at(200), None, (LimitBlock(at(200), at(1200), 20_000),)))
    assert book.permitted_w(at(900)) == 60_000
    book.acknowledged(at(201))
    assert (book.permitted_w(at(260)), book.permitted_w(at(261))) == (60_000, 20_000)


def test_an_announcement_never_lifts_the_static_limit() -> None:
    book = LimitBook(20_000)
    book.announce(said(-600, (0, 1200, 35_000)))
    assert book.permitted_w(at(1)) == 20_000


def test_where_the_last_announcement_is_silent_the_one_before_holds() -> None:
    book = LimitBook(60_000)
    book.announce(said(-600, (0, 1200, 35_000)))
    book.announce(said(-500, (0, 300, 30_000)))
    assert book.permitted_w(at(301)) == 35_000


def test_nobody_is_asked_to_react_while_nobody_is_there() -> None:
    book = LimitBook(60_000)
    book.announce(said(-600, (300, 1200, 30_000)))
    book.announce(said(100, (100, 1200, 35_000)))
    book.absent(at(105))
    assert book.permitted_w(at(299)) == 60_000, "what was said in the last moment"
    book.announce(said(-600, (300, 1200, 30_000)))
    assert book.permitted_w(at(301)) == 30_000, "what was known in time"


def test_the_reaction_time_begins_anew_when_somebody_is_there_again() -> None:
    book = LimitBook(60_000)
    book.announce(said(100, (100, 1200, 35_000)))
    book.absent(at(105))
    assert book.permitted_w(at(900)) == 60_000
    book.present(at(300))
    assert book.permitted_w(at(359)) == 60_000
    assert book.permitted_w(at(360)) == 35_000


def test_an_absence_changes_nothing_of_what_had_to_be_followed_before() -> None:
    book = LimitBook(60_000)
    book.announce(said(0, (0, 1200, 35_000)))
    book.absent(at(100))
    book.present(at(200))
    assert book.permitted_w(at(62)) == book.permitted_w(at(150)) == 35_000


def test_a_forgiven_excess_is_seen_and_not_held_against_the_site() -> None:
    site = a_site(limit_w=9_000, draw_w=7_500)
    site.forgiven.append((at(0), at(5)))
    for second in range(11):
        site.sample(at(second))
    assert site.excess_seconds() == pytest.approx(10)
    assert site.excess["main"].blamed_s == pytest.approx(5)
    assert site.blamed_w() == pytest.approx(500)


def test_excess_is_measured_at_every_node_with_size_and_duration() -> None:
    site = a_site(limit_w=9_000, draw_w=7_500)
    for second in range(11):
        site.sample(at(second))
    assert site.excess["main"].worst_w == pytest.approx(500)
    assert site.excess_seconds() == pytest.approx(10)
    assert site.excess["main/garage"].worst_w == 0


def test_a_site_within_its_limits_has_no_excess() -> None:
    site = a_site(limit_w=9_500, draw_w=7_500)
    site.sample(at(0))
    site.sample(at(1))
    assert (site.worst().worst_w, site.excess_seconds()) == (0, 0)


def test_energy_is_the_integral_of_the_draw() -> None:
    site = a_site(limit_w=60_000, draw_w=7_200)
    for second in range(0, 3601, 60):
        site.sample(at(second))
    assert site.delivered_wh() == pytest.approx(7_200)
    assert site.registers["main"].wh == pytest.approx(9_200)


def test_what_was_possible_respects_every_node_above_and_the_load_beside() -> None:
    assert a_site(limit_w=9_000, draw_w=0).possible_w(at(0)) == 7_000
    assert a_site(limit_w=60_000, draw_w=0).possible_w(at(0)) == 8_000


def test_a_register_can_be_read_back_between_two_readings() -> None:
    register = Register()
    register.add(at(0), 0)
    register.add(at(10), 3_600)
    assert register.at(at(5)) == pytest.approx(5)
    assert register.at(at(99)) == register.wh == pytest.approx(10)
    assert register.at(at(-1)) == 0


@given(seed=st.integers(0, 10_000), second=st.integers(0, 7_200))
def test_a_building_stays_in_its_band_and_moves_slowly(seed: int, second: int) -> None:
    load = BuildingLoad(seed)
    before, after = load.power_w(at(second)), load.power_w(at(second + 1))
    assert 6_000 <= before <= 12_000
    assert abs(after - before) < 20


def test_two_seeds_give_two_buildings() -> None:
    assert BuildingLoad(1).power_w(SIX) != BuildingLoad(2).power_w(SIX)


def test_the_judge_shares_no_code_with_the_controller() -> None:
    source = Path(gateway.testing.__file__).with_name("physics.py").read_text(encoding="utf-8")
    names = {n.module or "" for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)}
    names |= {a.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import) for a in n.names}
    assert not {n for n in names if n.split(".")[0] in {"gateway", "adapters"}}
