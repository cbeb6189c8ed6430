"""Playing a story: a real gateway in a child process, a simulated world around it, a judge.

The world knows what flows because it *is* what flows. Nothing that the gateway says about itself
enters the verdict, except where the question is whether it can prove what it did.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.domain.errors import ConfigError, GatewayError
from gateway.domain.timeline import rfc3339
from gateway.testing.cast import Dso, StationActor
from gateway.testing.child import Lives, quiet_ports
from gateway.testing.clock import StoryClock
from gateway.testing.judge import Acknowledged, Death, Evening, Lie, Notebook
from gateway.testing.meters import Meter
from gateway.testing.narrate import Narrator, Verdict, narrator, watts
from gateway.testing.offline import GRIDGATE, examine, stored_requests
from gateway.testing.physics import Announcement, Draw, LimitBlock, LimitBook, Physics, Reading
from gateway.testing.stage import LISTENERS, SitePlan, Stage, build_stage, meter_name, write_site
from gateway.testing.stories import STORIES
from gateway.testing.story import CarPlan, Forecast, Story

WALL_LIMIT_S = 60.0
"""Real seconds for a whole story: what somebody who tries it out will wait for."""

LEAD_S = 3.0
"""Real seconds that a gateway needs until it is ready; the story's clock starts so much early."""

FRAME_S = 0.25
"""Real seconds between two drawings of the tree."""

STRAGGLER_S = 5.0
"""Story seconds after a cut is kept in which another acceptance still belongs to it."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


@dataclass(frozen=True)
class Hooks:
    """Where tests reach in. ``after_stop`` gets the store's path between stop and judgement.

    ``stop_on_failure`` ends the story at the first excess or missing message instead of playing
    a lost evening to its end.
    """

    after_stop: Callable[[Path], None] | None = None
    stop_on_failure: bool = False


def play(
    story: str | Story,
    *,
    seed: int,
    keep: Path | None = None,
    json_output: bool = False,
    gateway_command: Sequence[str] | None = None,
    speed: float | None = None,
    hooks: Hooks | None = None,
) -> int:
    """Play a story and judge it.

    Args:
        keep: folder in which certificates, configuration and store stay; must be new or empty.
        gateway_command: what to put before ``run site.yaml``; the installed gateway by default.
        speed: story seconds per real second; the story's own by default.

    Returns:
        The exit status: 0 if every check held, 1 if not, 2 if the story cannot be begun.
    """
    known = STORIES.get(story) if isinstance(story, str) else story
    if known is None:
        print(f'error  there is no story "{story}"; stories: {", ".join(STORIES)}', file=sys.stderr)
        return EXIT_USAGE
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        print(f"error  {keep} is not an empty folder; name a new one for --keep", file=sys.stderr)
        return EXIT_USAGE
    voice = narrator(json_output)
    chosen = replace(known, speed=speed) if speed is not None else known
    verdict = _perform(chosen, seed, keep, tuple(gateway_command or GRIDGATE), hooks or Hooks(), voice)
    voice.close(verdict)
    return EXIT_OK if verdict.ok else EXIT_FAILED


def _perform(
    story: Story, seed: int, keep: Path | None, command: Sequence[str], hooks: Hooks, voice: Narrator
) -> Verdict:
    folder = keep if keep is not None else Path(tempfile.mkdtemp(prefix="gridgate-demo-"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return asyncio.run(_guarded(story, seed, folder.absolute(), command, hooks, voice))
    except KeyboardInterrupt:
        return Verdict(story.name, seed, error="interrupted")
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _guarded(
    story: Story, seed: int, folder: Path, command: Sequence[str], hooks: Hooks, voice: Narrator
) -> Verdict:
    """Play; whatever breaks becomes a failed verdict with its text."""
    task = asyncio.current_task()
    if task is not None:
        # SIGINT is the runner's; a plain kill must end our children as well.
        with suppress(NotImplementedError):  # no signal handlers on loops other than Unix ones
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with asyncio.timeout(WALL_LIMIT_S):
            world = World(story, seed, build_stage(folder, story.site(seed)), command, hooks, voice)
            return await world.perform()
    except TimeoutError:
        error = f"the story did not end within {WALL_LIMIT_S:.0f} s"
    except ConfigError as problem:
        error = "\n".join(f"{p.key}: {p.message}" for p in problem.problems) or str(problem)
    except GatewayError as problem:
        error = str(problem)
    except ExceptionGroup as group:
        error = "\n".join(str(problem) for problem in _leaves(group))
    except asyncio.CancelledError:
        error = "ended by a signal"
    return Verdict(story.name, seed, error=error)


def _leaves(group: ExceptionGroup[Any]) -> list[GatewayError]:
    """The errors of ours in a group.

    Raises:
        ExceptionGroup: what is not one of ours is a bug of the world and shall be seen whole.
    """
    ours, others = group.split(GatewayError)
    if others is not None:
        raise others
    found: list[GatewayError] = []
    for problem in ours.exceptions if ours is not None else ():
        found.extend(_leaves(problem) if isinstance(problem, ExceptionGroup) else [problem])
    return found


class _LostEveningError(Exception):
    """The verdict is clear and the test does not want to see the rest."""


class World:
    """One evening. Implements ``gateway.testing.story.Scene`` for the script."""

    def __init__(
        self, story: Story, seed: int, stage: Stage, command: Sequence[str], hooks: Hooks, voice: Narrator
    ) -> None:
        self.seed = seed
        self._story = story
        self._plan: SitePlan = story.site(seed)
        self._stage = stage
        self._hooks = hooks
        self._voice = voice
        today = datetime.now(UTC).replace(hour=story.starts[0], minute=story.starts[1], second=0, microsecond=0)
        self._start = today
        self._end = today.replace(hour=story.ends[0], minute=story.ends[1])
        self._clock = StoryClock.starting(today - timedelta(seconds=LEAD_S * story.speed), story.speed)
        self._notes = Notebook()
        self._dso = Dso(stage, self._plan.group, self._clock)
        self._stations = {s.id: StationActor(s, stage, self._clock, seed) for s in self._plan.stations}
        self._physics = self._build_physics()
        self._lives = Lives((*command, "run", str(stage.site_file), "--story-clock", str(self._clock)), stage.folder)
        self._meters: list[Meter] = []
        self._grid_url = ""

    # --- what the script sees ------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Tell the audience."""
        self._voice.event(self._clock.now(), text)

    def now(self) -> datetime:
        """Story time."""
        return self._clock.now()

    async def until(self, instant: datetime) -> None:
        """Wait for story time."""
        await self._clock.sleep_until(instant)

    async def join_grid(self, promise_s: float = 120.0) -> None:
        """The DSO registers, shakes hands and sends heartbeats from now on."""
        await self._dso.join(self._grid_url, promise_s)
        self.say("the DSO registered over OSCP, swapped tokens and shook hands")

    async def forecast(self, kind: Forecast, blocks: Sequence[LimitBlock]) -> str:
        """Post, look into the store at once, remember what was allowed from when."""
        sent_at = self._clock.now()
        if kind is Forecast.LIMIT:
            # A station may be told before we have read the answer.
            self._announce(Announcement(sent_at, None, tuple(blocks)))
        request = await self._dso.forecast(kind, blocks)
        stored = stored_requests(self._stage.store, [request])
        acked_at = self._clock.now()
        if kind is Forecast.LIMIT:
            self._physics.limits[self._plan.root].acknowledged(acked_at)
        self._notes.forecasts.append(Acknowledged(request, acked_at))
        if self._notes.deadline is not None and self._notes.fresh_at is None:
            self._notes.fresh_at = sent_at
        if request not in stored:
            self._notes.missing_at_204.append(request)
            self._give_up_if_asked()
        return request

    async def repeat(self, request: str) -> None:
        """The same bytes under the same id again; acknowledged again."""
        await self._dso.repeat(request)
        self._notes.repeated += 1

    async def timed_cut(self, blocks: Sequence[LimitBlock]) -> float | None:
        """Post a cut and wait until the connection is physically below it.

        Returns:
            Real ms from the post to the last acceptance of a lower limit; None if the cut was not
            kept within twice the reaction time, or lowered nobody.
        """
        posted = self._clock.monotonic()
        self._notes.signal = await self.forecast(Forecast.LIMIT, blocks)
        return await self._followed(posted, min(block.watts for block in blocks))

    async def fall_silent(self) -> datetime:
        """Nothing after the next heartbeat that is acknowledged; when the next one is missed."""
        self._notes.deadline = await self._dso.fall_silent()
        return self._notes.deadline

    async def timed_fallback(self, deadline: datetime, blocks: Sequence[LimitBlock], request: str) -> float | None:
        """Wait for the deadline and then until the connection is physically below the fallback."""
        await self.until(deadline)
        late_s = self._clock.wall_seconds((self._clock.now() - deadline).total_seconds())
        passed = self._clock.monotonic() - late_s
        self._notes.signal = request
        self._announce(Announcement(deadline, deadline, tuple(blocks)))
        return await self._followed(passed, min(block.watts for block in blocks))

    def speak_again(self) -> None:
        """Heartbeats again; what was said before the silence is not said again by them."""
        self._dso.speak()

    async def plug_in(self, car: CarPlan) -> None:
        """A car is plugged in and authorised."""
        await self._stations[car.station].plug_in(car)
        self.say(f"{car.station}: a car that takes up to {watts(car.max_w)} wants {car.wants_wh / 1000:.1f} kWh")

    async def unplug(self, station: str) -> None:
        """The car at a station leaves."""
        await self._stations[station].unplug()
        self.say(f"{station}: the car leaves")

    async def lie(self, station: str) -> None:
        """A station keeps no limit from now on; nobody can prevent what it takes until others made room.

        It begins right after its meter was read, when it takes longest until it is noticed.
        """
        actor = self._stations[station]
        before = actor.reports
        while actor.reports == before:
            await self.until(self._clock.now() + timedelta(seconds=1))
        actor.lie()
        now = self._clock.now()
        self._notes.lie = Lie(station, actor.plan.node, now)
        self._physics.forgiven.append((now, now + timedelta(seconds=self._story.reaction_s)))

    async def kill(self) -> None:
        """SIGKILL for the gateway."""
        self._notes.deaths.append(Death(self._clock.now()))
        for book in self._physics.limits.values():
            book.absent(self._notes.deaths[-1].killed_at)
        await self._lives.kill()
        self.say("the gateway was killed (SIGKILL)")

    async def restart(self) -> None:
        """The gateway starts again on the same ports and store."""
        await self._lives.begin()
        ready_at = self._clock.now()
        self._notes.deaths[-1] = replace(self._notes.deaths[-1], ready_at=ready_at)
        for book in self._physics.limits.values():
            book.present(ready_at)
        self.say("the gateway is ready again, on the same ports and the same store")

    def _announce(self, said: Announcement) -> None:
        self._physics.limits[self._plan.root].announce(said)

    async def _followed(self, since: float, limit_w: float) -> float | None:
        """Real ms from ``since`` (monotonic) to the last acceptance of a lower limit, once it is kept."""
        patience = self._clock.now() + timedelta(seconds=2 * self._story.reaction_s)
        while self._used_w() > limit_w:
            if self._clock.now() > patience:
                return None
            await self.until(self._clock.now() + timedelta(seconds=1))
        self._notes.kept_ms = (self._clock.monotonic() - since) * 1000
        await self.until(self._clock.now() + timedelta(seconds=STRAGGLER_S))
        self._notes.kept_at = self._clock.now()
        accepted = [t for s in self._stations.values() for t in s.lowered_since(since)]
        if accepted:
            self._notes.ack_ms = (max(accepted) - since) * 1000
        return self._notes.ack_ms

    # --- the evening ---------------------------------------------------------------------------

    async def perform(self) -> Verdict:
        """Play, stop, judge."""
        speed = f"{self._story.speed:g}×"
        self._voice.open(f"gridgate demo · {self._story.title} · seed {self.seed} · {speed}")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._dso.stop)
            write_site(self._stage, self._plan, dso_host=await self._dso.start(), ports=quiet_ports(LISTENERS))
            await stack.enter_async_context(self._lives)
            ports = await self._lives.begin()
            self.say(f"the gateway is ready: {', '.join(f'{k} {v}' for k, v in sorted(ports.items()))}")
            await self._connect(ports, stack)
            await self._play_out()
            await self._collect()
        return await self._judge()

    async def _connect(self, ports: Mapping[str, int], stack: AsyncExitStack) -> None:
        self._grid_url = f"https://127.0.0.1:{ports['grid']}"
        admin = f"https://127.0.0.1:{ports['admin']}"
        self._meters = [self._meter(node, admin) for node in self._plan.meters]
        for meter in self._meters:
            stack.push_async_callback(meter.close)
        for station in self._stations.values():
            stack.push_async_callback(station.stop)
        url = f"wss://127.0.0.1:{ports['ocpp']}"
        await asyncio.gather(*(station.start(url) for station in self._stations.values()))

    async def _play_out(self) -> None:
        """Everything that lives during the evening; ends with the script."""
        background = [
            asyncio.ensure_future(work)
            for work in (self._lives.lost(), self._sample(), self._draw(), *(m.run(self._clock) for m in self._meters))
        ]
        script = asyncio.ensure_future(self._run_script())
        try:
            done, _ = await asyncio.wait({*background, script}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with suppress(_LostEveningError):
                    task.result()
        finally:
            for task in (*background, script):
                task.cancel()
            await asyncio.gather(*background, script, return_exceptions=True)

    async def _run_script(self) -> None:
        await self._story.script(self, self._start)
        await self.until(self._end)

    async def _collect(self) -> None:
        """Write down what the actors know, then end them and the gateway."""
        notes = self._notes
        notes.heartbeats_out, notes.heartbeats_in = self._dso.heartbeats()
        notes.reports = self._dso.reports()
        notes.profiles = {name: s.accepted for name, s in self._stations.items()}
        notes.visits = [visit for s in self._stations.values() for visit in s.visits]
        notes.meter_readings = sum(meter.posted for meter in self._meters)
        notes.meter_refusals = [refusal for meter in self._meters for refusal in meter.refusals]
        # Who is still on the line holds up the gateway's orderly end.
        await asyncio.gather(*(a.stop() for a in self._stations.values()), *(m.close() for m in self._meters))
        await self._lives.stop()
        self.say("the gateway has stopped")

    async def _judge(self) -> Verdict:
        if self._hooks.after_stop is not None:
            self._hooks.after_stop(self._stage.store)
        kept_at = self._notes.kept_at
        measured = None if kept_at is None else f"{self._plan.root}@{rfc3339(kept_at)}"
        left = await examine(self._stage.folder, measured)
        evening = Evening(self._plan, self._physics, self._notes, left, self._start, self._end, self._story.speed)
        checks = tuple(trial(evening) for trial in self._story.trials)
        size, root = left.verified.document.get("size"), left.verified.document.get("root")
        verified = left.verified.document.get("ok") is True
        return Verdict(
            story=self._story.name,
            seed=self.seed,
            signal_to_ack_ms=None if self._notes.ack_ms is None else round(self._notes.ack_ms),
            excess_w=round(self._physics.worst().worst_w),
            excess_s=round(self._physics.excess_seconds()),
            evidence=size if verified else None,
            root=str(root) if verified else "",
            checks=checks,
            figures=self._figures(),
        )

    # --- parts ---------------------------------------------------------------------------------

    def _build_physics(self) -> Physics:
        house = self._story.house(self.seed)
        draws = [Draw("main/house", house.power_w, house.power_w, controllable=False)]
        draws += [Draw(s.plan.node, s.power_w, s.wish_w) for s in self._stations.values()]
        reaction = timedelta(seconds=self._story.reaction_s)
        limits = {node: LimitBook(watts_, reaction) for node, watts_ in self._plan.static_limits().items()}
        return Physics({n: b for n, b in limits.items() if n != "main/house"}, draws)

    def _meter(self, node: str, url: str) -> Meter:
        identity = self._stage.pki.meters[meter_name(node)]
        return Meter(node, identity, url, self._plan.id, lambda _now: self._reading(node))

    def _reading(self, node: str) -> dict[str, int]:
        last = self._physics.last
        power = 0.0 if last is None else last.power_w.get(node, 0.0)
        reading = {"power_w": round(power)}
        if node == self._plan.root and node in self._physics.registers:
            reading["energy_import_wh"] = int(self._physics.registers[node].wh)
        return reading

    def _used_w(self) -> float:
        last = self._physics.last
        return 0.0 if last is None else last.power_w.get(self._plan.root, 0.0)

    async def _sample(self) -> None:
        """Look at every device once per story second."""
        while True:
            self._physics.sample(self._clock.now())
            if self._physics.blamed_w() > 0:
                self._give_up_if_asked()
            await self.until(self._clock.now() + timedelta(seconds=1))

    async def _draw(self) -> None:
        while True:
            if self._physics.last is not None:
                self._voice.frame(self._physics.last, self._words(self._physics.last))
            await asyncio.sleep(FRAME_S)

    def _words(self, reading: Reading) -> dict[str, str]:
        return {s.plan.node: s.words(reading.at) for s in self._stations.values()}

    def _give_up_if_asked(self) -> None:
        if self._hooks.stop_on_failure:
            raise _LostEveningError

    def _figures(self) -> dict[str, int | float | str]:
        return {
            "delivered_wh": round(self._physics.delivered_wh()),
            "possible_wh": round(self._physics.offered.wh),
            "site_import_wh": round(self._physics.registers[self._plan.root].wh),
            "compliance_errors": self._dso.complaints(),
        }
