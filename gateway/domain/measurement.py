"""Measured values: what, how much, when, how good. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from gateway.domain.ids import NodeId
from gateway.domain.quantities import ALL_PHASES, Phase


class Quantity(StrEnum):
    """Value is an integer in the unit of the name; import is positive.

    ``P`` W, ``I_*`` mA, ``V_*`` mV, ``E_*`` Wh registers, ``SOC`` 0.01 %,
    ``TEMPERATURE`` 0.01 °C (of a node: what its derating goes by).
    """

    P = "power_w"
    I_L1 = "current_l1_ma"
    I_L2 = "current_l2_ma"
    I_L3 = "current_l3_ma"
    V_L1 = "voltage_l1_mv"
    V_L2 = "voltage_l2_mv"
    V_L3 = "voltage_l3_mv"
    E_IMPORT = "energy_import_wh"
    E_EXPORT = "energy_export_wh"
    SOC = "soc_centipercent"
    TEMPERATURE = "temperature_centicelsius"


class Quality(StrEnum):
    """How far a value is to be trusted."""

    GOOD = "GOOD"
    ESTIMATED = "ESTIMATED"
    SUSPECT = "SUSPECT"
    BAD = "BAD"


class Measurement(msgspec.Struct, frozen=True, gc=False):
    """One value at a node. ``measured_at`` is the device's clock, ``received_at`` ours."""

    node: NodeId
    quantity: Quantity
    value: int
    measured_at: datetime
    received_at: datetime
    quality: Quality = Quality.GOOD
    source: str = ""


CURRENT = {Phase.L1: Quantity.I_L1, Phase.L2: Quantity.I_L2, Phase.L3: Quantity.I_L3}
VOLTAGE = {Phase.L1: Quantity.V_L1, Phase.L2: Quantity.V_L2, Phase.L3: Quantity.V_L3}


def on_site_phases(measured: Measurement, terminals: tuple[Phase, ...]) -> Measurement | None:
    """A value that a meter gives for its own L1, L2 or L3, as one of the site phase that feeds that terminal.

    None where nothing feeds it: the meter has a terminal more than the node has phases. What is of
    no phase stays as it is.
    """
    for by_phase in (CURRENT, VOLTAGE):
        for phase, quantity in by_phase.items():
            if measured.quantity is quantity:
                terminal = ALL_PHASES.index(phase)
                if terminal >= len(terminals):
                    return None
                return replace(measured, quantity=by_phase[terminals[terminal]])
    return measured
