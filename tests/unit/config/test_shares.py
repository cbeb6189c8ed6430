"""Safe shares and reserves, which hold for ever without us, fit every static limit."""

from __future__ import annotations

import pytest

from tests.unit.config.site_file import GONE, SiteFile
from tests.unit.config.test_mistakes import the_problem

SHARES_W = 4 * 4_600
RESERVE_W = 8_000


@pytest.mark.parametrize(
    ("index", "need_w"), [(0, SHARES_W + RESERVE_W), (1, SHARES_W)], ids=["with the building", "garage"]
)
def test_what_holds_without_us_fits_every_limit_to_the_watt(depot: SiteFile, index: int, need_w: int) -> None:
    assert depot.tell(f"nodes[{index}].import_max_w", need_w).load()
    problem = the_problem(depot.tell(f"nodes[{index}].import_max_w", need_w - 1))
    assert (problem.code, problem.key) == ("config.safe-shares", f"nodes[{index}].import_max_w")
    assert f"{need_w} W" in problem.message


def test_safe_shares_fit_every_phase_to_the_milliampere(depot: SiteFile) -> None:
    assert depot.tell("nodes[1].import_max_a", {"L1": 26.667, "L2": 26.667, "L3": 26.667}).load()
    problem = the_problem(depot.tell("nodes[1].import_max_a.L2", 26.666))
    assert (problem.code, problem.key) == ("config.safe-shares", "nodes[1].import_max_a.L2")
    assert "26.7 A on L2" in problem.message


def test_an_evse_on_one_phase_loads_that_phase_with_all_its_share(depot: SiteFile) -> None:
    depot.tell("evses[0].phases", ["L2"])
    depot.tell("nodes[1].import_max_a", {"L1": 20, "L2": 40, "L3": 20})
    assert depot.load()
    assert the_problem(depot.tell("nodes[1].import_max_a.L2", 39)).key == "nodes[1].import_max_a.L2"


def test_a_reserve_counts_on_all_phases(depot: SiteFile) -> None:
    depot.tell("nodes[0].import_max_a", {"L3": 38.667})
    depot.tell("nodes[2].reserve_w", 8_280)
    assert depot.load()
    assert the_problem(depot.tell("nodes[2].reserve_w", 8_281)).key == "nodes[0].import_max_a.L3"


def test_an_evses_own_voltage_counts(depot: SiteFile) -> None:
    depot.tell("nodes[1].import_max_a", {"L1": 26.667, "L2": 26.667, "L3": 26.667}).tell("evses[0].voltage_v", 120)
    assert {p.code for p in depot.problems()} == {"config.safe-shares"}


def test_where_nothing_may_be_drawn_there_is_no_share(depot: SiteFile) -> None:
    depot.tell("nodes[1].import_max_w", 0)
    assert the_problem(depot).key == "nodes[1].import_max_w"
    for index in range(4):
        depot.tell(f"evses[{index}].safe_share_w", 0)
    assert depot.load()


def test_without_a_share_an_evse_counts_nothing(depot: SiteFile) -> None:
    for index in range(4):
        depot.tell(f"evses[{index}].safe_share_w", GONE)
    assert depot.tell("nodes[1].import_max_w", 0).load()


def test_what_holds_without_us_fits_the_lowest_that_derating_can_leave(depot: SiteFile) -> None:
    depot.tell("nodes[1].import_max_w", SHARES_W * 2).tell("nodes[1].derate", 0.8)
    depot.tell("nodes[1].derate_heat", [{"above_c": 35, "fraction": 0.625}])
    assert depot.load()
    problem = the_problem(depot.tell("nodes[1].derate_heat[0].fraction", 0.624))
    assert (problem.code, problem.key) == ("config.safe-shares", "nodes[1].import_max_w")
    assert problem.found == "a limit of 18363 W, derated"


def test_what_holds_without_us_fits_the_apparent_power_at_its_power_factor(depot: SiteFile) -> None:
    assert depot.tell("nodes[1].apparent_max_va", 18_776).load()
    assert the_problem(depot.tell("nodes[1].apparent_max_va", 18_775)).key == "nodes[1].apparent_max_va"


def test_of_a_reserve_by_the_time_of_day_the_most_counts(depot: SiteFile) -> None:
    depot.tell("nodes[2].reserve_w", 0).tell("nodes[0].import_max_w", SHARES_W + 9_000)
    depot.tell("nodes[2].reserve_profile", [{"start": "06:00", "w": 9_000}, {"start": "22:00", "w": 100}])
    assert depot.load()
    assert the_problem(depot.tell("nodes[2].reserve_profile[0].w", 9_001)).key == "nodes[0].import_max_w"
