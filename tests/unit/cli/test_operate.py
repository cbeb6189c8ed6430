"""What an operator sees and does, from the command line through a running admin listener to the evidence."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from gateway.config import load
from gateway.domain import events as ev
from gateway.domain.evidence import MessageRef
from gateway.domain.ids import PeerId, SourceId
from gateway.kit.tls import client_context
from gateway.ports.adapter import ClientIdentity
from gateway.runtime import Gateway
from gateway.testing.clock import ManualClock
from tests.unit.cli.evening import Said, at, gridgate

WHY = "maintenance agreed by telephone"


@pytest.fixture
def own(evening: Path, tmp_path: Path) -> Path:
    """A copy of the evening that may be changed, listening on free ports."""
    folder = tmp_path / "depot"
    shutil.copytree(evening.parent, folder)
    file = folder / evening.name
    file.write_text(re.sub(r"port: \d+", "port: 0", file.read_text(encoding="utf-8")), encoding="utf-8")
    return file


@asynccontextmanager
async def running(file: Path) -> AsyncIterator[tuple[Gateway, str]]:
    """The whole gateway on the evening's store; its admin URL."""
    gateway = Gateway(load(file), ManualClock(at(7)))
    ports = await gateway.start()
    try:
        yield gateway, f"https://127.0.0.1:{ports['admin']}"
    finally:
        await gateway.stop("test")


async def asked(*words: str | Path) -> Said:
    return await asyncio.to_thread(gridgate, *words)


def living(said: Said) -> str:
    """The one envelope that has not ended."""
    [found] = [e["envelope"] for e in said.document["envelopes"] if e["state"] not in ("WITHDRAWN", "EXPIRED")]
    return str(found)


@pytest.mark.anyio
async def test_a_withdrawal_ends_the_envelope_and_says_who_and_why(own: Path) -> None:
    async with running(own) as (_, url):
        envelope = living(await asked("envelope", "list", own, "--url", url, "--json"))
        said = await asked("envelope", "withdraw", envelope, own, "--reason", WHY, "--url", url, "--json")
        assert said.code == 0, said.out
        shown = await asked("envelope", "show", envelope, own, "--url", url, "--json")
    assert (shown.document["state"], shown.document["cause"]) == ("WITHDRAWN", f"operator: {WHY}")
    listed = await asked("evidence", "list", own, "--type", "operator.acted", "--json")
    [entry] = listed.document["entries"]
    assert entry["body"] == {"action": "envelope.withdraw", "why": WHY}
    assert entry["subject"]["operator"] == "urn:gridgate:operator:operator"
    assert entry["subject"]["request_id"] == said.document["request_id"]
    assert gridgate("evidence", "verify", own).code == 0


@pytest.mark.anyio
async def test_what_has_ended_is_not_withdrawn_again(own: Path) -> None:
    async with running(own) as (_, url):
        envelope = living(await asked("envelope", "list", own, "--url", url, "--json"))
        words = ("envelope", "withdraw", envelope, own, "--reason", WHY, "--url", url, "--json")
        await asked(*words)
        again = await asked(*words)
    assert (again.code, again.document["error"]["code"]) == (1, "domain.action-refused")


@pytest.mark.anyio
async def test_a_fallback_that_outlived_its_source_is_released(own: Path) -> None:
    async with running(own) as (gateway, url):
        ended = MessageRef(PeerId("dso"), "register:delete", "bye", at(7))
        await gateway.runner.submit([ev.SourceEnded(SourceId("dso"), "relation ended", ended)])
        stale = [e.id for e in gateway.runner.state.envelopes.values() if e.stale]
        said = await asked("fallback", "release", stale[0], own, "--reason", WHY, "--url", url)
        assert said.code == 0, said.err
        assert [e.id for e in gateway.runner.state.envelopes.values() if e.stale] == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("envelope", "withdraw", "env_0"), "domain.unknown-envelope"),
        (("fallback", "release", "env_0"), "domain.unknown-envelope"),
        (("station", "trust", "main/nowhere"), "domain.unknown-node"),
    ],
)
async def test_an_unknown_subject_is_refused(own: Path, words: tuple[str, ...], code: str) -> None:
    async with running(own) as (_, url):
        said = await asked(*words, own, "--reason", WHY, "--url", url, "--json")
    assert (said.code, said.document["error"]["code"]) == (1, code)


@pytest.mark.anyio
async def test_a_meter_may_not_act(own: Path) -> None:
    folder = own.parent / "pki" / "admin" / "meters"
    meter = next(folder.glob("*.pem"))
    identity = ("--cert", meter, "--key", meter.with_suffix(".key"))
    async with running(own) as (_, url):
        said = await asked("envelope", "withdraw", "env_0", own, "--reason", WHY, "--url", url, "--json", *identity)
    assert (said.code, said.document["error"]["code"]) == (1, "peer.not-authorised")


@pytest.mark.anyio
@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "two\nlines"])
async def test_without_a_proper_reason_nothing_is_done(own: Path, reason: str) -> None:
    async with running(own) as (_, url):
        said = await asked("envelope", "withdraw", "env_0", own, "--reason", reason, "--url", url, "--json")
    assert (said.code, said.document["error"]["code"]) == (1, "admin.reason")


def test_stations_are_listed_from_the_store_when_nobody_runs(evening: Path) -> None:
    said = gridgate("station", "list", evening, "--offline", "--json")
    assert said.document["from"] == "store"
    assert [s["connected"] for s in said.document["stations"]] == [False, False]
    assert (said.document["approved"], said.document["unknown"]) == ([], [])


async def knocks(gateway: Gateway, file: Path, name: str, certificate: str) -> int:
    """Open a station's connection and close it; the HTTP status that it gets."""
    folder = file.parent / "pki" / "ocpp"
    pem = folder / "stations" / f"{certificate}.pem"
    identity = ClientIdentity(pem, pem.with_suffix(".key"), folder / "server-ca.pem")
    url = f"wss://127.0.0.1:{gateway.ports['ocpp']}/ocpp/{name}"
    try:
        async with connect(url, ssl=client_context(identity), subprotocols=[Subprotocol("ocpp1.6")]):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.anyio
async def test_a_station_that_knocked_is_listed_approved_and_revoked(own: Path) -> None:
    async with running(own) as (gateway, url):
        where = (own, "--url", url, "--json")
        assert await knocks(gateway, own, "NEW-7", "CP-2") == 404
        [seen] = (await asked("station", "list", *where)).document["unknown"]
        assert (seen["station"], seen["serial"], seen["listener"], seen["times"]) == ("NEW-7", "SN-CP-2", "ocpp", 1)
        before = gateway.runner.state.grants.get("main/garage/evse-1")
        words = ("station", "approve", "NEW-7", *where, "--evse", "main/garage/evse-1", "--reason", WHY)
        said = await asked(*words)
        assert said.code == 0, said.out
        explained = (await asked("explain", "main/garage/evse-1", *where)).document
        assert (explained["proven"], explained["worst_case_w"]) == (False, 22_080)
        assert before is None or before.share.confirmed is None
        assert await knocks(gateway, own, "NEW-7", "CP-2") == 101
        assert await knocks(gateway, own, "CP-1", "CP-1") == 404
    stored = gridgate("station", "list", own, "--offline", "--json").document
    assert [s["held_by"] for s in stored["stations"]] == ["NEW-7", ""]
    [approved] = stored["approved"]
    assert (approved["place"], approved["operator"], approved["reason"]) == (
        "CP-1",
        "urn:gridgate:operator:operator",
        WHY,
    )
    assert [u["serial"] for u in stored["unknown"]] == ["SN-CP-1"]
    text = gridgate("station", "list", own, "--offline").out
    assert "its place is held by NEW-7" in text
    assert "unknown" in text
    async with running(own) as (gateway, url):
        assert await knocks(gateway, own, "NEW-7", "CP-2") == 101
        said = await asked("station", "revoke", "NEW-7", own, "--reason", WHY, "--url", url, "--json")
        assert said.code == 0, said.out
        assert await knocks(gateway, own, "NEW-7", "CP-2") == 404
        assert await knocks(gateway, own, "CP-1", "CP-1") == 101
        again = await asked("station", "revoke", "NEW-7", own, "--reason", WHY, "--url", url, "--json")
    assert (again.code, again.document["error"]["code"]) == (1, "domain.action-refused")
    acts = gridgate("evidence", "list", own, "--type", "operator.acted", "--json").document["entries"]
    assert [(a["body"]["action"], a["subject"]["station"], a["body"]["place"]) for a in acts] == [
        ("station.revoke", "NEW-7", "CP-1"),
        ("station.approve", "NEW-7", "CP-1"),
    ]
    assert acts[1]["body"]["credential"] == approved["credential"]
    assert gridgate("evidence", "verify", own).code == 0


@pytest.mark.anyio
async def test_where_two_of_one_name_knocked_the_operator_says_which(own: Path) -> None:
    async with running(own) as (gateway, url):
        where = (own, "--url", url, "--json", "--evse", "main/garage/evse-1", "--reason", WHY)
        for certificate in ("CP-1", "CP-2"):
            await knocks(gateway, own, "NEW-7", certificate)
        unclear = await asked("station", "approve", "NEW-7", *where)
        nobody = await asked("station", "approve", "NEW-8", *where)
        seen = (await asked("station", "list", own, "--url", url, "--json")).document["unknown"]
        wanted = next(s["credential"] for s in seen if s["serial"] == "SN-CP-2")
        other = await asked("station", "approve", "NEW-7", *where, "--credential", "zz")
        said = await asked("station", "approve", "NEW-7", *where, "--credential", wanted[:8].upper())
        listed = (await asked("station", "list", own, "--url", url, "--json")).document
    assert (unclear.code, unclear.document["error"]["code"]) == (2, "cli.usage")
    assert (nobody.code, nobody.document["error"]["code"]) == (1, "cli.not-found")
    assert (other.code, other.document["error"]["code"]) == (1, "cli.not-found")
    assert said.code == 0, said.out
    assert [a["serial"] for a in listed["approved"]] == ["SN-CP-2"]


def test_entries_are_found_by_node_type_verdict_and_time(evening: Path) -> None:
    every = gridgate("evidence", "list", evening, "--type", "compliance.interval", "--json").document["entries"]
    assert len(every) > 2
    breaches = gridgate("evidence", "list", evening, "--verdict", "breach", "--node", "main", "--json").document
    assert {e["body"]["verdict"] for e in breaches["entries"]} == {"BREACH"}
    first = every[-1]["at"]
    later = gridgate("evidence", "list", evening, "--type", "compliance.interval", "--to", first, "--json").document
    assert later["entries"] == []
    newest = gridgate("evidence", "list", evening, "--limit", "1", "--json").document
    assert (len(newest["entries"]), newest["truncated"]) == (1, True)


@pytest.mark.parametrize("words", [("--from", "yesterday"), ("--from", "2026-03-01T17:00:00")])
def test_an_instant_without_a_zone_is_a_usage_error(evening: Path, words: tuple[str, ...]) -> None:
    assert gridgate("evidence", "list", evening, *words).code == 2


def test_an_export_holds_the_signed_log_and_never_overwrites(evening: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    said = gridgate("evidence", "export", folder, evening, "--json")
    assert said.code == 0, said.err
    origin = said.document["vkey"].partition("+")[0]
    lines = (folder / "checkpoint").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == [origin, str(said.document["size"])]
    assert list((folder / "tile" / "entries").iterdir())
    assert gridgate("evidence", "export", folder, evening).code == 2


@pytest.mark.anyio
async def test_a_registration_without_an_address_is_refused_and_both_are_on_record(own: Path) -> None:
    async with running(own) as (_, url):
        said = await asked("peer", "register", "dso", own, "--reason", WHY, "--url", url, "--json")
    assert (said.code, said.document["error"]["code"]) == (1, "domain.action-refused")
    types = [
        gridgate("evidence", "list", own, "--type", t, "--json").document["entries"]
        for t in ("operator.acted", "signal.refused")
    ]
    assert [len(found) for found in types] == [1, 1]


@pytest.mark.anyio
async def test_a_request_for_capacity_needs_a_relation(own: Path) -> None:
    words = ("--watts", "40000", "--from", "2026-03-01T18:00:00Z", "--to", "2026-03-01T19:00:00Z", "--reason", WHY)
    async with running(own) as (_, url):
        said = await asked("adjust", "dso", "DEPOT-7", *words, "--file", own, "--url", url, "--json")
        naive = await asked(
            "adjust", "dso", "DEPOT-7", "--watts", "1", "--from", "2026-03-01T18:00:00", "--to", "2026-03-01T19:00:00Z",
            "--reason", WHY, "--file", own, "--url", url, "--json",
        )  # fmt: skip
    assert (said.code, said.document["error"]["code"]) == (1, "domain.action-refused")
    assert (naive.code, naive.document["error"]["code"]) == (1, "admin.adjust")


@pytest.mark.anyio
async def test_a_peer_that_is_not_configured_is_refused(own: Path) -> None:
    async with running(own) as (_, url):
        said = await asked("peer", "handshake", "nobody", own, "--reason", WHY, "--url", url, "--json")
    assert (said.code, said.document["error"]["code"]) == (1, "domain.action-refused")


def test_an_invitation_is_a_token_for_its_owner_alone_and_is_never_overwritten(own: Path) -> None:
    said = gridgate("peer", "invite", "aggregator", "--file", own, "--json")
    token = Path(said.document["token"])
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text(encoding="ascii").strip() not in said.out
    assert gridgate("peer", "invite", "aggregator", "--file", own).code == 2
    assert gridgate("peer", "invite", "dso", "--file", own).code == 2


def test_peers_are_listed_with_what_they_are_bound_to(evening: Path) -> None:
    [peer] = gridgate("peer", "list", evening, "--offline", "--json").document["peers"]
    assert (peer["peer"], peer["groups"]) == ("dso", ["DEPOT-7"])


@pytest.mark.anyio
async def test_a_reload_takes_the_file_as_it_is_now_and_says_what_changed(own: Path) -> None:
    async with running(own) as (gateway, url):
        text = own.read_text()
        own.write_text(text.replace("fallback_now", "exhaust_schedule"))
        said = await asked("reload", own, "--url", url, "--reason", "a longer memory")
        assert said.code == 0, said.err
        [group] = gateway.config.groups
        assert f"changed binding {group.peer}/{group.group}" in said.out
        assert gateway.config.groups[0].policy.on_loss == "exhaust_schedule"
        again = await asked("reload", own, "--url", url, "--reason", "once more", "--json")
        assert again.document["changes"] == []


@pytest.mark.anyio
async def test_a_reload_that_needs_a_restart_says_which_part(own: Path) -> None:
    async with running(own) as (gateway, url):
        before = gateway.config
        text = own.read_text()
        own.write_text(text.replace("operator_domain: ", "operator_domain: other."))
        said = await asked("reload", own, "--url", url, "--reason", "another name")
        assert said.code == 1
        assert "site.operator_domain" in said.err
        assert gateway.config is before
