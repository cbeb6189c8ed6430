from __future__ import annotations

import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.cli import doctor
from gateway.infra.store_sql.lock import StoreLock
from tests.unit.cli.evening import a_site, gridgate


def findings(file: Path) -> dict[str, list[tuple[str, str]]]:
    out: dict[str, list[tuple[str, str]]] = {}
    for found in gridgate("doctor", file, "--json").document["checks"]:
        out.setdefault(found["name"], []).append((found["status"], found["text"]))
    return out


def any_port(file: Path) -> Path:
    text = file.read_text()
    for port in ("8443", "8887", "8460"):
        text = text.replace(f"port: {port}", "port: 0")
    file.write_text(text)
    return file


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return any_port(a_site(tmp_path / "depot"))


def test_a_fresh_site_has_nothing_that_fails(site: Path) -> None:
    said = gridgate("doctor", site)
    assert said.code == 0, said.out
    for line in said.out.splitlines():
        assert line.split()[0] in ("ok", "warn")
    assert {"python", "packages", "configuration", "port", "file mode", "certificate", "clock", "disk", "store"} <= set(
        findings(site)
    )


def test_a_port_that_is_taken_fails(site: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        site.write_text(site.read_text().replace("port: 0", f"port: {port}", 1))
        said = gridgate("doctor", site, "--json")
    assert said.code == 3
    assert said.document["ok"] is False
    [failed] = [c for c in said.document["checks"] if c["status"] == "fail"]
    assert f"127.0.0.1:{port}" in failed["text"]


def test_ports_that_the_running_gateway_holds_are_no_failure(evening: Path, tmp_path: Path) -> None:
    shutil.copytree(evening.parent, tmp_path / "copy")
    file = any_port(tmp_path / "copy" / "site.yaml")
    lock = StoreLock(tmp_path / "copy" / "gridgate.db")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        file.write_text(file.read_text().replace("port: 0", f"port: {other.getsockname()[1]}", 1))
        assert {status for status, _ in findings(file)["port"]} == {"ok"}
        lock.release()
        assert {status for status, _ in findings(file)["port"]} == {"ok", "fail"}


def test_a_key_that_others_may_read_fails(site: Path) -> None:
    # Which of the two says it depends on how strict the configuration is about its files.
    (site.parent / "pki" / "admin" / "server.key").chmod(0o644)
    said = gridgate("doctor", site)
    assert said.code == 3
    assert "server.key" in said.out or "configuration" in said.out


@pytest.mark.parametrize(("days", "status"), [(1, "warn"), (-1, "ok"), (400, "fail")])
def test_certificates_are_looked_at_before_they_end(site: Path, days: int, status: str) -> None:
    from cryptography import x509

    path = site.parent / "pki" / "grid" / "server.pem"
    ends = min(c.not_valid_after_utc for c in x509.load_pem_x509_certificates(path.read_bytes()))
    margin = {1: ends - timedelta(days=1), -1: datetime.now(UTC) + timedelta(hours=1), 400: ends + timedelta(days=1)}
    assert doctor._expiry("listener grid", path, margin[days]).status == status


def test_without_a_site_the_machine_alone_is_looked_at(tmp_path: Path) -> None:
    said = gridgate("doctor", tmp_path / "site.yaml", "--json")
    assert said.code == 0
    assert said.document["checks"][-1]["status"] == "warn"


def test_a_broken_configuration_fails(site: Path) -> None:
    site.write_text("site: [")
    assert gridgate("doctor", site).code == 3


def test_a_lost_evidence_key_is_found(evening: Path, tmp_path: Path) -> None:
    shutil.copytree(evening.parent, tmp_path / "copy")
    file = any_port(tmp_path / "copy" / "site.yaml")
    assert findings(file)["store"][0][0] == "ok"
    (tmp_path / "copy" / "gridgate-evidence.key").unlink()
    [(status, text)] = findings(file)["store"]
    assert status == "fail"
    assert "gridgate-evidence.key" in text


def test_relaxations_are_warnings(site: Path) -> None:
    site.write_text(site.read_text().replace("allow_private: false", "allow_private: true"))
    [(status, text)] = findings(site)["relaxed"]
    assert status == "warn"
    assert "allow_private" in text
