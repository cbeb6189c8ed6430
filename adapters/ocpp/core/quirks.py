"""What is different about a station, by what its BootNotification says. Data in, effects out. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import msgspec

RateUnit: TypeAlias = Literal["A", "W"]
Relation: TypeAlias = Literal["Absolute", "Relative"]


class Effect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What changes. None and False: nothing.

    ``unit``: of limits, where the station does not say. ``kind``: of our profiles; Relative ones
    have one period. ``poll_meter``: values are asked for, they do not come. ``resend_after_pause``:
    the last limit is sent again when charging goes on. ``skip_proof``: its composite schedules are
    wrong, so ``Accepted`` is believed and only the meter watches. ``hint``: for whoever installs it,
    once it rejects a limit.
    """

    unit: RateUnit | None = None
    kind: Relation | None = None
    poll_meter: bool = False
    resend_after_pause: bool = False
    skip_proof: bool = False
    hint: str = ""


class Quirk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A row of the table. Either ``effect`` or ``handled`` says what follows."""

    name: str
    seen: str
    vendor: str = ""
    model: str = ""
    firmware: str = ""
    effect: Effect = Effect()
    handled: str = ""

    def fits(self, about: Mapping[str, str]) -> bool:
        """Whether it is about this station."""
        return all(
            _plain(about.get(word, "")).startswith(_plain(wanted))
            for word, wanted in (("vendor", self.vendor), ("model", self.model), ("firmware", self.firmware))
        )


def effect_of(table: Iterable[Quirk], about: Mapping[str, str]) -> Effect:
    """Everything that is different about a station; later rows win."""
    changed: dict[str, object] = {}
    for quirk in table:
        if quirk.fits(about):
            changed |= msgspec.to_builtins(quirk.effect)
    return msgspec.convert(changed, Effect)


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())
