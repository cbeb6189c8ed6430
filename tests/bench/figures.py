"""What a benchmark prints: medians with their spread, and the CPU that a process used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles


def milliseconds(seconds: Sequence[float]) -> str:
    """Median, lowest and highest of runs."""
    low, middle, high = (f"{1_000 * value:.2f}" for value in (min(seconds), median(seconds), max(seconds)))
    return f"{middle} ms ({low} to {high})"


def percentile_95(values: Sequence[float]) -> float:
    """Of single operations, all runs together."""
    return quantiles(values, n=20, method="inclusive")[-1]


def cpu_s(pid: int) -> float:
    """User and system seconds of the threads that a process has. Linux only; threads that ended are not in it."""
    # /proc/PID/stat has the same in ticks of 10 ms, as much as ten requests take.
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def microseconds(seconds: Sequence[float]) -> str:
    """Median, lowest and highest of runs."""
    low, middle, high = (f"{1e6 * value:,.0f}" for value in (min(seconds), median(seconds), max(seconds)))
    return f"{middle} us ({low} to {high})"


def own_kib(pid: int) -> int:
    """KiB of memory that are a process's alone (USS). Linux only."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
