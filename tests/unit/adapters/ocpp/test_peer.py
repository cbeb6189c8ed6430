"""The simulated station obeys like a conforming one, from what it holds alone."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from adapters.ocpp.peer import Car, Outlet, Profile, ProfileStore
from tests.support.ocpp import T0


def a_profile(number: int, purpose: str = "default", *, level: int = 0, **more: object) -> Profile:
    given = {"outlet": 1, "transaction": None, "start": T0, "unit": "A", "periods": ((0, 16.0, 3),)} | more
    return Profile(number, purpose=purpose, level=level, **given)  # type: ignore[arg-type]  # fields by name


def held(*profiles: Profile, strict: bool = True) -> ProfileStore:
    store = ProfileStore(strict=strict)
    for profile in profiles:
        assert store.install(profile, "tx") == ""
    return store


def limit(store: ProfileStore, second: float = 0, *, charging: bool = True) -> float | None:
    return store.limit_a(1, T0 + timedelta(seconds=second), charging=charging, voltage_v=230.0, phases=3)


def test_nothing_installed_means_no_limit():
    assert limit(held()) is None


def test_a_transactions_profile_replaces_the_default_where_it_has_a_value():
    tx = a_profile(2, "transaction", level=1, transaction="tx", periods=((0, 20.0, 3),), duration_s=600)
    store = held(a_profile(1, periods=((0, 6.0, 3),)), tx)
    assert (limit(store, 599), limit(store, 600)) == (20.0, 6.0)
    assert limit(store, charging=False) == 6.0
    store.transaction_ended(1)
    assert limit(store) == 6.0


def test_the_highest_level_wins_and_is_no_minimum():
    assert limit(held(a_profile(1, level=0, periods=((0, 6.0, 3),)), a_profile(2, level=3))) == 16.0


def test_the_stations_maximum_caps_both():
    assert limit(held(a_profile(1), a_profile(2, "max", outlet=0, periods=((0, 10.0, 3),)))) == 10.0


def test_the_default_of_outlet_zero_holds_where_there_is_no_own_one():
    everywhere = a_profile(1, outlet=0, periods=((0, 8.0, 3),))
    assert limit(held(everywhere)) == 8.0
    assert limit(held(everywhere, a_profile(2))) == 16.0


def test_watts_are_divided_among_the_phases_in_use():
    assert limit(held(a_profile(1, unit="W", periods=((0, 6900.0, 3),)))) == 10.0


def test_validity_gates_the_whole_profile():
    store = held(a_profile(1, valid_from=T0 + timedelta(seconds=5), valid_to=T0 + timedelta(seconds=9)))
    assert [limit(store, s) for s in (4, 5, 8, 9)] == [None, 16.0, 16.0, None]


def test_the_same_place_is_replaced_in_16_and_refused_in_201():
    one, two = a_profile(1), a_profile(2)
    assert [p.id for p in held(one, two, strict=False).held] == [2]
    assert held(one).install(two, None) == "DuplicateProfile"
    assert held(one).install(dataclasses.replace(one, periods=((0, 7.0, 3),)), None) == ""


@pytest.mark.parametrize(
    ("profile", "running", "reason"),
    [
        (a_profile(1, "transaction", transaction="tx"), None, "TxNotFound"),
        (a_profile(1, "transaction", transaction="other"), "tx", "TxNotFound"),
        (a_profile(1, level=99), None, "InvalidStackLevel"),
        (a_profile(1, periods=()), None, "InvalidSchedule"),
        (a_profile(1, periods=((5, 1.0, 3),)), None, "InvalidSchedule"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(profile: Profile, running: str | None, reason: str):
    assert ProfileStore(strict=False).install(profile, running) == reason


def an_outlet(*profiles: Profile) -> Outlet:
    outlet = Outlet(1, held(*profiles))
    outlet.plug_in(Car(energy_wh=3_000, max_w=11_040), T0)
    outlet.running = True
    return outlet


def test_a_car_draws_the_lesser_of_its_wish_and_the_limit():
    assert an_outlet(a_profile(1)).power_w(T0) == 11_040
    assert an_outlet(a_profile(1, periods=((0, 10.0, 3),))).power_w(T0) == 6_900


def test_below_six_amperes_nothing_flows():
    outlet = an_outlet(a_profile(1, periods=((0, 5.9, 3),)))
    assert (outlet.power_w(T0), outlet.state(T0)) == (0, "SuspendedEVSE")


def test_energy_is_counted_across_the_edges_of_a_schedule():
    outlet = an_outlet(a_profile(1, periods=((0, 10.0, 3), (600, 0.0, 3), (1200, 10.0, 3))))
    outlet.settle(T0 + timedelta(seconds=1800))
    assert outlet.register_wh == pytest.approx(6900 * 1200 / 3600)


def test_a_full_car_draws_nothing():
    outlet = an_outlet(a_profile(1))
    assert outlet.power_w(T0 + timedelta(hours=2)) == 0
    assert outlet.received_wh == 3_000
    assert outlet.state(T0 + timedelta(hours=2)) == "SuspendedEV"


def test_a_station_that_ignores_limits_draws_what_the_car_wants():
    outlet = an_outlet(a_profile(1, periods=((0, 0.0, 3),)))
    outlet.ignore_limits = True
    assert outlet.power_w(T0) == 11_040
