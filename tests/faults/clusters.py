"""A deployment on a Redis Cluster, and what happens to one: primaries die, lagging replicas take over, slots move.

Level `replica`, six partitions over three primaries. What breaks one primary must be an error to nobody else's buyers.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from flashhold.domain.idempotency import parse_hold_id
from flashhold.domain.places import partition_names, place_of
from flashhold.embedded.binaries import RedisBinary
from tests.cluster.nodes import LocalCluster, Node, fall_behind, take_over
from tests.conftest import REDIS_BINARIES
from tests.faults import injectors
from tests.faults.load import SKUS, Mix
from tests.faults.stack import OwnStack
from tests.faults.trial import Scenario, Setting, Trial

BACK_S = 5.0
"""After the promotion every partition acknowledges again."""
PATIENCE_S = 60.0
SLOWEST_S = 2.7
"""Nobody waits longer: two seconds, and what a machine of two cores adds to them."""
STILL = 0.7
"""How often the worker stands still meanwhile: what the ledger has comes back from it, and that would hide a loss."""
WORDS = ("MOVED", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT", "NOSCRIPT", "READONLY", "MASTERDOWN", "LOADING")
"""Of the cluster's own language; none may reach a user."""


class ClusterStack(OwnStack):
    """API, worker and Postgres as in an `OwnStack`; its Redis are six nodes, which only a scenario starts again."""

    def __init__(
        self, data_dir: Path, *, binary: RedisBinary, partitions: int = 6, durability: str = "replica"
    ) -> None:
        shared = {"FLASHHOLD_PARTITIONS": str(partitions), "FLASHHOLD_DURABILITY": durability}
        super().__init__(data_dir, environ={"FLASHHOLD_PROCESSES": "2", **shared})
        self.partitions = partition_names(partitions)
        self.shared = shared
        (data_dir / "log").mkdir(parents=True)
        self.cluster = LocalCluster(data_dir / "cluster", binary, logs=data_dir / "log")

    @property
    def redis_url(self) -> str:
        return self.cluster.url

    def commands_environ(self) -> dict[str, str]:
        return {**self.shared, "FLASHHOLD_REDIS_URL": self.redis_url, "FLASHHOLD_DATABASE_URL": self.database_url}

    def stop(self) -> None:
        super().stop()
        self.cluster.stop()

    def _start_stores(self) -> None:
        self.cluster.start()
        self._start_server(self.postgres)


def on(kind: str, durability: str = "replica") -> Callable[[Path], ClusterStack]:
    """Makes such a deployment of servers whose kind begins so, or of what there is."""

    def made(data_dir: Path) -> ClusterStack:
        found = [binary for name, binary in REDIS_BINARIES.items() if name.startswith(kind)]
        return ClusterStack(data_dir, binary=(found or list(REDIS_BINARIES.values()))[0], durability=durability)

    return made


def stack_of(trial: Trial) -> ClusterStack:
    assert isinstance(trial.stack, ClusterStack), "these scenarios need a cluster"
    return trial.stack


def partition_of(stack: ClusterStack, request: dict[str, Any]) -> str:
    """Where the request is decided."""
    hold = parse_hold_id(request["hold"]) if request.get("hold") else None
    if hold is not None:
        return hold[0]
    sku = request.get("sku") or request["lines"][0]["sku"]
    return place_of(sku, stack.partitions)


def sold_from(stack: ClusterStack) -> set[str]:
    """Partitions that the load asks for changes."""
    return {place_of(sku, stack.partitions) for sku in SKUS}


async def survived(
    trial: Trial, what: str, struck: set[str], step: Callable[[], Awaitable[float]], *, within_s: float = BACK_S
) -> None:
    """Carry the fault out; `step` gives the instant from which `struck` partitions have to be back. The others must not
    have noticed."""
    stack = stack_of(trial)
    began = time.monotonic()
    with trial.history.fault(what):
        back_at = await step()
        for partition in sorted(struck & sold_from(stack)):
            first = await trial.load.first_success(back_at, PATIENCE_S, partition)
            if first is None:
                trial.wrong(f"{what}: {partition} has acknowledged nothing within {PATIENCE_S:.0f} s")
                continue
            trial.outcome.recovery_s = max(trial.outcome.recovery_s or 0.0, first - back_at)
            if first - back_at > within_s:
                trial.wrong(f"{what}: {partition} was back only {first - back_at:.1f} s after the promotion")
    trial.outcome.trials += 1
    for at, request, why in trial.load.failures:
        partition = partition_of(stack, request)
        if at >= began and partition not in struck and not why.startswith("given up"):
            trial.wrong(f"{what}: a request to {partition}, which it did not strike, ended with {why}")


async def settled(trial: Trial) -> None:
    """Between two faults all nodes are well; and nothing that was said was in the cluster's own words."""
    await asyncio.to_thread(stack_of(trial).cluster.until_whole)
    await asyncio.sleep(trial.rng.uniform(0.5, 1.5))


def judged_words(trial: Trial) -> None:
    """Notes what was said, and wrong is what only a cluster's administrator understands."""
    for sentence, times in trial.load.client.said.most_common():
        if any(word in sentence for word in WORDS):
            trial.wrong(f"{times} users were told: {sentence}")
    for why, slowest_s in trial.load.slowest_s.items():
        if slowest_s > SLOWEST_S and not why.startswith("given up"):
            trial.wrong(f"somebody waited {slowest_s:.1f} s for: {why}")


def _some_primary(trial: Trial) -> tuple[Node, set[str]]:
    """One that serves partitions that are sold from, and all partitions that it serves."""
    stack = stack_of(trial)
    victim = stack.cluster.primary_of(trial.rng.choice(sorted(sold_from(stack))))
    return victim, {name for name in stack.partitions if stack.cluster.primary_of(name) is victim}


async def primaries_die(trial: Trial, times: int | None = None) -> None:
    """kill -9 of a primary; its replica is promoted by the others, and it comes back as the replica of that."""
    cluster = stack_of(trial).cluster
    for _ in range(times or trial.times):
        victim, struck = await asyncio.to_thread(_some_primary, trial)

        async def dies(victim: Node = victim) -> float:
            replica = cluster.replica_of(victim)
            await asyncio.to_thread(victim.kill)
            await asyncio.to_thread(cluster.until_promoted, replica)
            await asyncio.to_thread(victim.start)
            # Only from here on is there a replica again that could confirm what level `replica` promises.
            return time.monotonic()

        await survived(trial, "kill -9 of a primary", struck, dies)
        await settled(trial)
    judged_words(trial)


async def primaries_hang(trial: Trial) -> None:
    """SIGSTOP of a primary until another has its place: when it goes on, it carries out what had reached it, and thinks
    for a moment that it still is the one."""
    cluster = stack_of(trial).cluster
    for _ in range(trial.times):
        victim, struck = await asyncio.to_thread(_some_primary, trial)

        async def hangs(victim: Node = victim) -> float:
            replica = cluster.replica_of(victim)
            victim.signal(signal.SIGSTOP)
            await asyncio.to_thread(cluster.until_promoted, replica)
            await asyncio.sleep(trial.rng.uniform(0.0, 1.0))
            victim.signal(signal.SIGCONT)
            return time.monotonic()

        await survived(trial, "a primary hangs", struck, hangs)
        await settled(trial)
    judged_words(trial)


async def lagging_replicas_take_over(trial: Trial, still: float = STILL) -> None:
    """A replica that is megabytes behind is made the primary by force: what it lacks was acknowledged to nobody."""
    cluster = stack_of(trial).cluster
    for _ in range(trial.times):
        victim, struck = await asyncio.to_thread(_some_primary, trial)

        async def taken_over(victim: Node = victim, struck: set[str] = struck) -> float:
            replica = cluster.replica_of(victim)
            replica.signal(signal.SIGSTOP)
            await asyncio.to_thread(fall_behind, victim, sorted(struck)[0])
            # What is written now is behind all that; and where the worker stands still, the ledger has it neither.
            async with injectors.worker_still(trial.stack) if trial.rng.random() < still else nullcontext():
                await asyncio.sleep(trial.rng.uniform(1.0, 2.0))
                ahead = victim.info("replication")["master_repl_offset"]
                await asyncio.to_thread(victim.kill)
            replica.signal(signal.SIGCONT)
            await asyncio.to_thread(take_over, replica)
            reached = replica.info("replication")["master_repl_offset"]
            trial.note(f"{ahead - reached:,} bytes behind")
            if ahead <= reached:
                trial.wrong("the replica was not behind: this trial shows nothing")
            await asyncio.to_thread(victim.start)
            return time.monotonic()

        await survived(trial, "a lagging replica takes over", struck, taken_over)
        await settled(trial)
    judged_words(trial)


async def slots_move(trial: Trial, times: int | None = None) -> None:
    """Busy partitions' slots go from primary to primary with their keys, some standing half-way: an error to nobody."""
    stack = stack_of(trial)
    for _ in range(times or trial.times):
        partition = trial.rng.choice(sorted(sold_from(stack)))
        half_way_s = trial.rng.choice([0.0, 0.0, trial.rng.uniform(0.05, 0.5)])

        async def moves(partition: str = partition, half_way_s: float = half_way_s) -> float:
            source = stack.cluster.primary_of(partition)
            others = [n for n in stack.cluster.nodes if n is not source and n.info("replication")["role"] == "master"]
            move = (key_slot(partition.encode()), source, trial.rng.choice(others))
            await asyncio.to_thread(stack.cluster.move_slot, *move, between=lambda: time.sleep(half_way_s))
            return time.monotonic()

        await survived(trial, "a busy slot moves", {partition}, moves)
    asked = [why for _, _, why in trial.load.failures if not why.startswith("given up")]
    if asked:
        trial.wrong(f"{len(asked)} requests failed while slots moved, e.g. {asked[0]}")
    judged_words(trial)


async def all_are_restarted(trial: Trial) -> None:
    """kill -9 of all six nodes: the processes that lived through it go on by themselves."""
    stack = stack_of(trial)
    for _ in range(trial.times):

        async def restarted() -> float:
            await asyncio.to_thread(stack.cluster.restart_all)
            await asyncio.to_thread(stack.cluster.until_whole)
            return time.monotonic()

        await survived(trial, "all nodes restarted", set(stack.partitions), restarted)
        await settled(trial)
    judged_words(trial)


SETTING = Setting(mix=Mix(alone=1.0), stack=on("valkey"), rate_per_s=300.0)
SCENARIOS = (
    Scenario("cluster-kill", "kill -9 of a primary", primaries_die, SETTING, times=10, target=30, seconds=120),
    Scenario(
        "cluster-lagging",
        "a lagging replica takes over",
        lagging_replicas_take_over,
        SETTING,
        times=5,
        target=10,
        seconds=120,
    ),
    Scenario("cluster-move", "busy slots move", slots_move, SETTING, times=100, target=300, seconds=120),
    Scenario(
        "cluster-kill-redis",
        "kill -9 of a primary (Redis 7.0)",
        primaries_die,
        replace(SETTING, stack=on("redis")),
        times=5,
        target=10,
        seconds=80,
    ),
    Scenario("cluster-hang", "SIGSTOP of a primary", primaries_hang, SETTING, times=5, target=10, seconds=90),
    Scenario("cluster-restart", "all six nodes restarted", all_are_restarted, SETTING, times=3, target=3, seconds=90),
)
