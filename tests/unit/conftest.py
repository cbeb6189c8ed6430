"""Fixtures that several areas share: the loop's kind and throw-away certificates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.pki.dev import DevPki, make_dev_pki


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def dev_pki(tmp_path_factory: pytest.TempPathFactory) -> DevPki:
    """Certificates of this test run; TLS compares them with the machine's clock."""
    return make_dev_pki(
        tmp_path_factory.mktemp("pki"),
        site="depot",
        parties=["dso", "aggregator"],
        stations=[("CP-1", "SN-CP-1")],
        meters=["house"],
        now=datetime.now(UTC),
    )
