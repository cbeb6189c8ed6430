"""SIGKILL at random moments: what was acknowledged is there, and the log verifies."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.infra.evidence_read import EvidenceReader
from gateway.infra.evidence_verify import verify_log
from tests.support.store import DEPOT, a_store

CHILD = Path(__file__).with_name("store_child.py")
KILLS = 5
MANY_KILLS = 20
MOST = 400
"""Acknowledgements before the kill, at most."""


def run_and_kill(folder: Path, after: int) -> int:
    """Run the child, kill it once it has acknowledged ``after`` more; the last number it printed."""
    with subprocess.Popen([sys.executable, str(CHILD), str(folder)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after)]
        child.kill()
        lines += child.stdout.readlines()
    whole = [line for line in lines if line.endswith(b"\n")]
    assert len(whole) >= after, "the child ended by itself"
    return int(whole[-1])


@pytest.mark.parametrize("kills", [KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_over_many_kills(tmp_path: Path, kills: int) -> None:
    moments = random.Random(kills)
    acknowledged = 0
    for _ in range(kills):
        last = run_and_kill(tmp_path, moments.randint(1, MOST))
        assert last > acknowledged
        acknowledged = last
        report = verify_log(tmp_path / "gridgate.db", head_path=tmp_path / "gridgate.head")
        assert report.ok, report.problems
        with EvidenceReader(tmp_path / "gridgate.db") as reader:
            assert reader.by_id(f"evd_{acknowledged}") is not None
    store = a_store(tmp_path)
    loaded = store.open_site(DEPOT)
    assert loaded.seq >= acknowledged
    assert loaded.sections["demo"]["seq"] == str(loaded.seq).encode()
    store.close()
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        steps = [e.document["site_seq"] for e in reversed(reader.by_type("test.step", limit=10_000))]
    assert steps == list(range(1, loaded.seq + 1))
