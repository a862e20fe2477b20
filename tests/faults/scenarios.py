"""What is broken, how, and what must nevertheless hold: a scenario a fault. `trial.carry_out` runs one of them.

Everything that a scenario draws comes from the trial's own seeded `rng`. The checker and the audit come afterwards by
themselves; a scenario adds only what they cannot see, such as a time or an answer that must not be given.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from flashhold.embedded import processes
from tests.faults import clusters, injectors, spoiled, surroundings
from tests.faults.injectors import Broken
from tests.faults.load import Mix
from tests.faults.proxy import Troubles
from tests.faults.stack import OwnStack, UpStack
from tests.faults.trial import Scenario, Setting, Trial

REFUSED_WITHIN_S = 2.0
_REFUSED_SLACK_S = 0.7
"""For a machine of two cores that also runs the crowd."""
LEASE_S = 15.0
DEATHS = ("worker", "redis", "postgres", "api")


def own(trial: Trial) -> OwnStack:
    """The trial's deployment, where it is one that can be kept from starting a role again."""
    assert isinstance(trial.stack, OwnStack), "this scenario needs it"
    return trial.stack


async def kills(*roles: str, trial: Trial, follow_ledger: bool = True) -> None:
    """kill -9 of one of the roles after the other at random moments, so many times in one load."""
    for number in range(trial.times):
        await asyncio.sleep(trial.rng.uniform(0.2, 2.0))
        role = roles[number % len(roles)]
        await trial.broken(f"kill -9 {role}", partial(injectors.kill, trial.stack, role, trial.rng))
        if follow_ledger and role not in ("redis", "api"):
            await follow(trial)


async def follow(trial: Trial) -> None:
    """How long the ledger takes to come after; a successor of a killed worker first waits for the end of its lease."""
    took_s = await trial.caught_up()
    if took_s is None:
        trial.wrong("the ledger does not catch up")
    else:
        trial.ledger_behind_s = max(trial.ledger_behind_s, took_s)


async def all_at_once(trial: Trial) -> None:
    """Both stores and both roles die in the same instant."""

    async def everything() -> Broken:
        return max(
            await asyncio.gather(
                *(injectors.kill(trial.stack, role, trial.rng) for role in ("redis", "postgres", "api", "worker"))
            ),
            key=lambda broken: broken.back_at,
        )

    for _ in range(trial.times):
        await asyncio.sleep(trial.rng.uniform(0.5, 3.0))
        await trial.broken("kill -9 of everything", everything)
    await follow(trial)


async def killed_in_fsync(
    trial: Trial, *, delay_ms: tuple[int, int] = (500, 3000), after: tuple[float, float] = (0.3, 1.5)
) -> None:
    """Redis killed while its fsync takes 0.5 to 3 s: what was answered must have been on the disk before.

    `after`: when it is killed, as parts of the delay.
    """

    async def slow_then_dead() -> Broken:
        pid = await injectors.living(trial.stack, "redis")
        chosen_ms = trial.rng.randint(*delay_ms)
        async with injectors.strained_fsync(pid, delay_ms=chosen_ms):
            await asyncio.sleep(trial.rng.uniform(*after) * chosen_ms / 1000)
            return await injectors.kill(trial.stack, "redis", trial.rng)

    for _ in range(trial.times):
        await asyncio.sleep(trial.rng.uniform(0.5, 1.5))
        await trial.broken("kill -9 redis in a slow fsync", slow_then_dead)


async def failing_fsync(trial: Trial) -> None:
    """The disk refuses fsync: Redis ends itself, because nothing that it would answer were true."""

    async def fails() -> Broken:
        pid = await injectors.living(trial.stack, "redis")
        error = trial.rng.choice(["EIO", "ENOSPC"])
        began = time.monotonic()
        async with injectors.strained_fsync(pid, error=error):
            await asyncio.to_thread(processes.wait_until, lambda: not processes.alive(pid), 10)
        return Broken(f"fsync fails with {error}", began, await trial.stack.back("redis", pid))

    for _ in range(trial.times):
        await asyncio.sleep(trial.rng.uniform(0.5, 1.5))
        await trial.broken("fsync fails", fails)


async def postgres_away(seconds: float, trial: Trial) -> None:
    """Holds go on without the ledger; when it is back, it gets everything, once, within a minute."""
    for _ in range(trial.times):
        await asyncio.sleep(trial.rng.uniform(1.0, 3.0))
        before = trial.load.counts.copy()
        kill_it = trial.rng.random() < 0.5
        away = partial(injectors.keep_away, own(trial), "postgres", seconds, kill_it=kill_it)
        await trial.broken(f"Postgres away for {seconds:.0f} s", away)
        lost = trial.load.counts - before
        failed = {why: count for why, count in lost.items() if why.startswith("503") or "time" in why or why == "429"}
        if failed:
            trial.wrong(f"calls failed while Postgres was away: {failed}")
        await follow(trial)
        if trial.ledger_behind_s > 60:
            trial.wrong(f"the backlog took {trial.ledger_behind_s:.0f} s")


async def frozen_store(trial: Trial) -> None:
    """Redis hangs for some seconds: everybody is told so within two, and all is well when it goes on."""
    for _ in range(trial.times):
        await asyncio.sleep(trial.rng.uniform(0.5, 2.0))
        seconds = trial.rng.uniform(2.5, 6.0)
        await trial.broken("Redis hangs", partial(injectors.freeze, trial.stack, "redis", seconds))
    limit_s = REFUSED_WITHIN_S + _REFUSED_SLACK_S
    for why, slowest_s in trial.load.slowest_s.items():
        if slowest_s > limit_s and not why.startswith("given up"):
            trial.wrong(f"somebody waited {slowest_s:.1f} s for: {why}")


async def frozen_worker(trial: Trial) -> None:
    """A worker stands still past its lease, another takes over, the first goes on and believes that it may write."""
    for _ in range(trial.times):
        seconds = LEASE_S + trial.rng.uniform(2.0, 6.0)
        role = "worker" if trial.rng.random() < 0.5 else "worker2"
        await trial.broken(f"{role} stalls", partial(injectors.freeze, trial.stack, role, seconds))
        await follow(trial)


async def many_requests(requests: int, trial: Trial) -> None:
    """Only the setting's troubles, until so many requests have ended, which are the trials."""
    done = trial.load.requests
    while done < requests:
        done += 500
        await asyncio.wait_for(trial.load.done(done), 300)
        if trial.rng.random() < 0.1 and trial.proxy.proxy is not None:
            trial.proxy.cut()
    met = trial.proxy.proxy.met if trial.proxy.proxy is not None else {}
    trial.note("met: " + (", ".join(f"{count} {what}" for what, count in met.items()) or "no proxy"))
    trial.outcome.trials = trial.load.requests


async def out_of_memory(trial: Trial) -> None:
    """At `maxmemory` new holds are refused; what gives back goes on; without the limit all is as before."""
    for _ in range(trial.times):
        await asyncio.sleep(trial.rng.uniform(0.5, 1.5))
        probe = spoiled.Probe(trial)
        await probe.prepare()

        await trial.broken("maxmemory reached", partial(_full, trial, probe))


async def _full(trial: Trial, probe: spoiled.Probe) -> Broken:
    began = time.monotonic()
    async with injectors.memory_limit(trial.stack, trial.rng.randint(20_000, 200_000)):
        await probe.while_full()
    return Broken("maxmemory reached", began, time.monotonic())


def of(torment: Callable[..., Awaitable[None]], *words: object, **named: object) -> Callable[[Trial], Awaitable[None]]:
    """The torment with its first arguments given."""

    async def with_words(trial: Trial) -> None:
        await torment(*words, trial=trial, **named)

    return with_words


BUSY = Setting(rate_per_s=3000.0, buyers=48)
HTTP_TROUBLES = Troubles(drop=0.03, tear=0.005, reset=0.01, lose=0.01, delay=0.02, delay_ms_max=30)
_REDIS_TROUBLES = Troubles(drop=0.01, tear=0.003, reset=0.005, lose=0.005, delay=0.02, delay_ms_max=20)

SCENARIOS = (
    Scenario("kill-redis", "kill -9 of Redis", of(kills, "redis"), seconds=40),
    Scenario("kill-api", "kill -9 of the API", of(kills, "api"), seconds=50),
    Scenario("kill-worker", "kill -9 of the worker", of(kills, "worker"), times=3, seconds=70),
    Scenario("kill-postgres", "kill -9 of Postgres", of(kills, "postgres"), seconds=60),
    Scenario("kill-everything", "kill -9 of all four at once", all_at_once, times=3, target=20, seconds=60),
    Scenario(
        "kill-under-up",
        "kill -9 of each under `flashhold up`",
        of(kills, *DEATHS),
        Setting(stack=UpStack),
        times=4,
        target=20,
        seconds=90,
    ),
    Scenario("slow-fsync", "kill -9 of Redis, fsync 0.5-3 s", killed_in_fsync, times=5, target=20, seconds=60),
    Scenario("failing-fsync", "fsync fails (EIO, ENOSPC)", failing_fsync, times=3, target=10, seconds=40),
    Scenario("postgres-away", "Postgres away 20 s", of(postgres_away, 20.0), times=1, target=6, seconds=50),
    Scenario(
        "postgres-away-long", "Postgres away 5 min", of(postgres_away, 300.0), BUSY, times=1, target=3, seconds=400
    ),
    Scenario("redis-hangs", "SIGSTOP of Redis, 2.5-6 s", frozen_store, times=4, target=20, seconds=50),
    Scenario(
        "replies-dropped",
        "replies to clients dropped, torn, reset",
        of(many_requests, 20_000),
        replace(BUSY, before_api=HTTP_TROUBLES),
        target=100_000,
        seconds=60,
    ),
    Scenario(
        "redis-replies-dropped",
        "replies of Redis dropped, torn, reset",
        of(many_requests, 10_000),
        replace(BUSY, before_redis=_REDIS_TROUBLES),
        target=100_000,
        seconds=60,
    ),
    Scenario(
        "sent-at-once",
        "each request sent 2-5 times at once",
        of(many_requests, 20_000),
        replace(BUSY, mix=Mix(at_once=1.0)),
        target=100_000,
        seconds=60,
    ),
    Scenario(
        "cancelled",
        "clients give up and ask again",
        of(many_requests, 20_000),
        replace(BUSY, mix=Mix(at_once=0.0, cancelled=0.8)),
        target=100_000,
        seconds=60,
    ),
    Scenario(
        "two-workers",
        "kill -9 of one of two workers",
        of(kills, "worker", "worker2"),
        Setting(workers=2),
        times=4,
        target=20,
        seconds=90,
    ),
    Scenario(
        "worker-stalls",
        "a worker stopped past its lease",
        frozen_worker,
        Setting(workers=2),
        times=1,
        target=20,
        seconds=50,
    ),
    Scenario("maxmemory", "Redis at maxmemory", out_of_memory, times=3, target=20, seconds=40),
    *spoiled.SCENARIOS,
    *surroundings.SCENARIOS,
    *clusters.SCENARIOS,
)
"""In the order of a short run."""
