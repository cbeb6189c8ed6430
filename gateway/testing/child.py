"""The gateway as a child process: started, waited for, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from asyncio import StreamReader
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from gateway.domain.errors import GatewayError

READY_S = 20.0
"""Real seconds until the line ``ready``; a cold start with a new database takes about two."""

STOP_S = 10.0
"""Real seconds for an orderly end before the process is killed."""

QUIET_PORTS = (20_000, 32_000)
"""Linux lends from 32768 on, others from 49152."""

LAST_LINES = 20
"""Lines of standard error that are kept for an error message."""

MAX_LINE = 64 * 1024
"""Longest line that is read from a child; log lines are far shorter."""


class ChildFailed(GatewayError):
    """The gateway process died, did not get ready, or did not answer a question."""

    code = "demo.gateway-failed"
    hint = "run the story again with --keep DIR and then `gridgate check DIR/site.yaml`"


class GatewayChild:
    """One run of the gateway, from :func:`gateway_child`."""

    def __init__(self, process: asyncio.subprocess.Process, output: StreamReader, errors: StreamReader) -> None:
        self._process = process
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._ready: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()
        self._readers = [
            asyncio.create_task(self._read_output(output)),
            asyncio.create_task(self._read_errors(errors)),
        ]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> Mapping[str, int]:
        """Wait for its line ``ready {"listener": port, ...}``; the ports.

        Raises:
            ChildFailed: it ended, or was not ready within 20 s.
        """
        ended = asyncio.create_task(self._process.wait())
        waiting: set[asyncio.Future[Any]] = {self._ready, ended}
        try:
            await asyncio.wait(waiting, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if self._ready.done():
            return self._ready.result()
        if self._process.returncode is not None:
            await self._finish_reading()
            raise self._failure(f"the gateway ended before it was ready, with {_exit_words(self._process.returncode)}")
        raise self._failure(f"the gateway was not ready within {READY_S:.0f} s")

    async def died(self) -> None:
        """Return never while it lives.

        Raises:
            ChildFailed: as soon as it has ended.
        """
        code = await self._process.wait()
        await self._finish_reading()
        raise self._failure(f"the gateway ended by itself with {_exit_words(code)}")

    async def stop(self) -> None:
        """Ask it to end and wait.

        Raises:
            ChildFailed: it needed to be killed, or ended with another code than 0.
        """
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            await self.kill()
            raise self._failure(f"the gateway did not end within {STOP_S:.0f} s of SIGTERM") from None
        await self._finish_reading()
        if code != 0:
            raise self._failure(f"the gateway ended with {_exit_words(code)}")

    async def kill(self) -> None:
        """End it at once if it still runs."""
        await _kill(self._process)
        await self._finish_reading()

    async def _read_output(self, stream: StreamReader) -> None:
        async for line in _lines(stream):
            if line.startswith("ready ") and not self._ready.done():
                try:
                    self._ready.set_result(parse_ready(line))
                except ChildFailed as problem:
                    self._ready.set_exception(problem)

    async def _read_errors(self, stream: StreamReader) -> None:
        async for line in _lines(stream):
            self._last.append(line)

    async def _finish_reading(self) -> None:
        if self._readers:
            _, unfinished = await asyncio.wait(self._readers, timeout=1.0)
            for task in unfinished:
                task.cancel()
        self._readers = []

    def _failure(self, what: str) -> ChildFailed:
        said = "\n".join(f"    {line}" for line in self._last)
        return ChildFailed(f"{what}\n  its last lines:\n{said}" if said else f"{what}; it said nothing")


@asynccontextmanager
async def gateway_child(command: Sequence[str], folder: Path) -> AsyncIterator[GatewayChild]:
    """Start the gateway in ``folder``; leaving the block kills what is left of it."""
    process = await _spawn(command, folder)
    if process.stdout is None or process.stderr is None:
        raise ChildFailed("a process without pipes")
    child = GatewayChild(process, process.stdout, process.stderr)
    try:
        yield child
    finally:
        await child.kill()


class Lives:
    """One gateway after another in the same folder; a context manager that leaves none behind."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._stack = AsyncExitStack()
        self._child: GatewayChild | None = None
        self._watch: asyncio.Task[None] | None = None
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Lives:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        self._look_away()
        await self._stack.aclose()

    async def begin(self) -> Mapping[str, int]:
        """Start one; its ports once it is ready.

        Raises:
            ChildFailed: it did not get ready.
        """
        self._child = await self._stack.enter_async_context(gateway_child(self._command, self._folder))
        ports = await self._child.ready()
        self._watch = asyncio.create_task(self._watch_over(self._child))
        return ports

    async def kill(self) -> None:
        """SIGKILL."""
        self._look_away()
        if self._child is not None:
            await self._child.kill()
        self._child = None

    async def stop(self) -> None:
        """Ask it to end and wait; nothing to do while none lives.

        Raises:
            ChildFailed: it did not end in order.
        """
        self._look_away()
        if self._child is not None:
            await self._child.stop()

    async def lost(self) -> None:
        """Return never while none dies by itself.

        Raises:
            ChildFailed: as soon as one has.
        """
        await asyncio.shield(self._lost)

    async def _watch_over(self, child: GatewayChild) -> None:
        try:
            await child.died()
        except ChildFailed as problem:
            if not self._lost.done():
                self._lost.set_exception(problem)

    def _look_away(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


async def ask(command: Sequence[str], folder: Path, timeout_s: float) -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error.

    Raises:
        ChildFailed: it took longer than ``timeout_s`` real seconds; it has been killed.
    """
    process = await _spawn(command, folder)
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        raise ChildFailed(f"`{' '.join(command)}` took longer than {timeout_s:.0f} s") from None
    finally:
        await _kill(process)
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


def parse_ready(line: str) -> dict[str, int]:
    """The ports in a line ``ready {"listener": port, ...}``.

    Raises:
        ChildFailed: the line means nothing.
    """
    try:
        ports = json.loads(line.removeprefix("ready "))
        return {str(name): int(port) for name, port in ports.items()}
    except (ValueError, TypeError, AttributeError) as problem:
        raise ChildFailed(f"the gateway's line {line!r} names no ports: {problem}") from problem


def quiet_ports(names: Sequence[str]) -> dict[str, int]:
    """A free port for each name that stays ours while nobody listens on it.

    They lie below the range from which systems lend ports to outgoing connections.
    """
    chance = random.SystemRandom()
    with ExitStack() as held:
        ports: dict[str, int] = {}
        while len(ports) < len(names):
            line = held.enter_context(socket.socket())
            port = chance.randrange(*QUIET_PORTS)
            with suppress(OSError):
                line.bind(("127.0.0.1", port))
                ports[names[len(ports)]] = port
        return ports


def child_environment() -> dict[str, str]:
    """Our environment, unbuffered: a line that waits in a buffer is a line that never came."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


async def _spawn(command: Sequence[str], folder: Path) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C reaches the world, and the world stops its children in order.
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=child_environment(),
        limit=MAX_LINE,
        start_new_session=True,
    )


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _exit_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


async def _lines(stream: StreamReader) -> AsyncIterator[str]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue  # longer than MAX_LINE: the reader dropped it
        if not line:
            return
        yield line.decode(errors="replace").rstrip()
