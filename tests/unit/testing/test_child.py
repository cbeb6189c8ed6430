import asyncio
import os
import sys
from pathlib import Path

import pytest

import gateway.testing.child as child_module
from gateway.testing.child import ChildFailed, Lives, ask, gateway_child, parse_ready, quiet_ports

READY = 'print(\'ready {"grid": 1, "ocpp": 2}\')\n'
SLEEP = "import signal; signal.pause()\n"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_ports_come_from_the_line_ready(tmp_path: Path) -> None:
    async def scene() -> dict[str, int]:
        async with gateway_child(python("print('hello')\n" + READY + SLEEP), tmp_path) as child:
            return dict(await child.ready())

    assert asyncio.run(scene()) == {"grid": 1, "ocpp": 2}


def test_a_child_that_dies_early_is_quoted(tmp_path: Path) -> None:
    async def scene() -> None:
        async with gateway_child(python("raise SystemExit('port 8443 is taken')"), tmp_path) as child:
            await child.ready()

    with pytest.raises(ChildFailed, match=r"exit code 1(.|\n)*port 8443 is taken"):
        asyncio.run(scene())


def test_a_child_that_is_never_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "READY_S", 0.2)

    async def scene() -> None:
        async with gateway_child(python(SLEEP), tmp_path) as child:
            await child.ready()

    with pytest.raises(ChildFailed, match="not ready"):
        asyncio.run(scene())


def test_leaving_the_block_by_an_error_leaves_no_process_behind(tmp_path: Path) -> None:
    pids: list[int] = []

    async def scene() -> None:
        async with gateway_child(python(READY + SLEEP), tmp_path) as child:
            await child.ready()
            pids.append(child.pid)
            raise RuntimeError("the world broke")

    with pytest.raises(RuntimeError):
        asyncio.run(scene())
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_stopping_asks_first_and_expects_exit_code_0(tmp_path: Path) -> None:
    polite = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(%d))\n"

    async def scene(code: int) -> None:
        async with gateway_child(python(polite % code + READY + "while True: signal.pause()"), tmp_path) as child:
            await child.ready()
            await child.stop()

    asyncio.run(scene(0))
    with pytest.raises(ChildFailed, match="exit code 3"):
        asyncio.run(scene(3))


def test_a_child_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with gateway_child(python(READY + "raise SystemExit('disk full')"), tmp_path) as child:
            await child.ready()
            await child.died()

    with pytest.raises(ChildFailed, match="disk full"):
        asyncio.run(scene())


def test_asking_returns_code_and_both_outputs(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert asyncio.run(ask(python(code), tmp_path, 10)) == (3, "out\n", "err\n")


def test_a_question_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="longer than"):
        asyncio.run(ask(python(SLEEP), tmp_path, 0.2))


@pytest.mark.parametrize("line", ["ready", "ready {", "ready []", 'ready {"grid": "x"}'])
def test_a_line_ready_without_ports_is_an_error(line: str) -> None:
    with pytest.raises(ChildFailed):
        parse_ready(line)


def test_one_life_after_another_and_a_kill_is_no_death_by_itself(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Lives(python(READY + SLEEP), tmp_path) as lives:
            lost = asyncio.ensure_future(lives.lost())
            assert await lives.begin() == {"grid": 1, "ocpp": 2}
            await lives.kill()
            await lives.stop()
            assert await lives.begin() == {"grid": 1, "ocpp": 2}
            await asyncio.sleep(0)
            assert not lost.done()
            lost.cancel()

    asyncio.run(scene())


def test_a_life_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Lives(python(READY + "raise SystemExit('disk full')"), tmp_path) as lives:
            await lives.begin()
            await lives.lost()

    with pytest.raises(ChildFailed, match="disk full"):
        asyncio.run(scene())


def test_ports_that_stay_ours_are_free_different_and_not_lent_to_others() -> None:
    ports = quiet_ports(["grid", "ocpp", "admin"])
    assert list(ports) == ["grid", "ocpp", "admin"]
    assert len(set(ports.values())) == 3
    assert all(1024 < port < 32_768 for port in ports.values())
