"""What every area shares: the loop's kind, how far properties are searched, when a test has hung."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

SLOW_S = 600
"""When a test marked ``slow`` or ``interop`` has hung; the others have ``timeout`` of pyproject.toml."""

# A busy machine is no reason to fail: no deadlines. The plain run searches the same examples each time;
# `pytest --hypothesis-profile deep` looks for new ones.
_BUSY = (HealthCheck.too_slow,)
settings.register_profile("plain", max_examples=100, deadline=None, derandomize=True, suppress_health_check=_BUSY)
settings.register_profile("deep", max_examples=1_000, deadline=None, suppress_health_check=_BUSY)
settings.load_profile("plain")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("timeout", None) is not None:  # --timeout is meant for all of them
        return
    for item in items:
        if item.get_closest_marker("timeout") is None and any(map(item.get_closest_marker, ("slow", "interop"))):
            item.add_marker(pytest.mark.timeout(SLOW_S))
