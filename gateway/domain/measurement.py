"""Measured values: what, how much, when, how good. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from gateway.domain.ids import NodeId


class Quantity(StrEnum):
    """Value is an integer in the unit of the name; import is positive.

    ``P`` W, ``I_*`` mA, ``V_*`` mV, ``E_*`` Wh registers, ``SOC`` 0.01 %.
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
