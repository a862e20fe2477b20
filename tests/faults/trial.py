"""One deployment under one load: started, broken by a scenario, brought to rest, and held against its history."""

import asyncio
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from flashhold.domain.errors import FlashHoldError
from flashhold.engine.durability import Durability
from flashhold.engine.journal import Journal
from flashhold.engine.options import EngineOptions
from tests.faults.checker import check
from tests.faults.history import HistoryWriter, read_history
from tests.faults.injectors import Broken, Skipped
from tests.faults.load import SHORT_TTL_S, Load, Mix
from tests.faults.proxy import ProxyThread, Troubles
from tests.faults.recorder import RecordingClient
from tests.faults.stack import OwnStack, Stack
from tests.faults.views import StoreView, read_ledger, read_store

RECOVERY_MAX_S = 10.0
"""What is promised between a store's return and the first correct answer."""
REST_PATIENCE_S = 90.0
_RECOVERY_PATIENCE_S = 45.0
_STILL_S = 1.2
"""The sweeper and the journal's reader rest at most half a second: nothing moved for this time, nothing will."""


@dataclass
class Outcome:
    """What a round showed. `times`: how often it was to break something; `trials`: faults injected, or requests
    sent where those are the trials."""

    scenario: str
    seed: int
    times: int
    trials: int = 0
    requests: int = 0
    acknowledged: int = 0
    unknown: int = 0
    recovery_s: float | None = None
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str | None = None
    seconds: float = 0.0


@dataclass
class Trial:
    """What a scenario works with while the load runs."""

    stack: Stack
    load: Load
    history: HistoryWriter
    rng: random.Random
    outcome: Outcome
    times: int
    """How often to break something."""
    proxy: ProxyThread
    """Before API or Redis, where the setting asks for one."""
    level: str = "disk"
    """What the faults leave of the promise; `memory` where one is beyond what the deployment's level survives."""
    ledger_behind_s: float = 0.0
    """The longest that the ledger took to come after."""
    store_stands: bool = True
    """Whether the store serves at the end, so that its counters and the audit count."""
    judged: bool = True
    """Whether the history must be true at the end; where somebody else has written, answers before that was found are
    not, and the scenario judges by itself."""
    counted: frozenset[str] | None = None
    """Kinds of violations that count; None: all."""

    async def broken(self, what: str, step: Callable[[], Awaitable[Broken]]) -> Broken:
        """Carry the fault out, wait until the API acknowledges changes again; counts a trial and its recovery."""
        with self.history.fault(what):
            broken = await step()
            first = await self.load.first_success(broken.back_at, _RECOVERY_PATIENCE_S)
        self.outcome.trials += 1
        if first is None:
            self.wrong(f"{broken.what}: nothing acknowledged within {_RECOVERY_PATIENCE_S:.0f} s of its return")
            return broken
        took_s = first - broken.back_at
        self.outcome.recovery_s = max(self.outcome.recovery_s or 0.0, took_s)
        if took_s > RECOVERY_MAX_S:
            self.wrong(f"{broken.what}: the first acknowledgement came {took_s:.1f} s after its return")
        return broken

    def wrong(self, sentence: str) -> None:
        """Note a violation."""
        self.outcome.violations.append(sentence)

    def note(self, sentence: str) -> None:
        """Note what is worth reading but not wrong."""
        self.outcome.notes.append(sentence)

    async def caught_up(self, patience_s: float = REST_PATIENCE_S) -> float | None:
        """Seconds until the ledger has what Redis has recorded by now; None: not within patience."""
        began = time.monotonic()
        seq = (await self._places())[0]
        while time.monotonic() - began < patience_s:
            redis_seq, ledger_seq, halted = await self._places()
            if halted:
                return None
            if None not in (seq, redis_seq, ledger_seq) and ledger_seq >= seq:
                return time.monotonic() - began
            await asyncio.sleep(0.05)
        return None

    async def rest(self) -> None:
        """Wait until short holds have expired, the ledger has everything and nothing moves any more."""
        await asyncio.sleep(max(SHORT_TTL_S))
        until = time.monotonic() + REST_PATIENCE_S
        before, since = None, time.monotonic()
        while time.monotonic() < until:
            now = await self._places()
            if now[2]:
                self.wrong(f"the ledger's writer has halted: {now[2]}")
                return
            if now != before or now[0] != now[1]:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > _STILL_S:
                return
            await asyncio.sleep(0.1)
        self.wrong(f"not at rest after {REST_PATIENCE_S:.0f} s: Redis, ledger at {before and before[:2]}")

    async def _places(self) -> tuple[Any, Any, str | None]:
        """Seq of Redis and of the ledger (None: not to be had now), and why the ledger's writer stands still."""
        return await asyncio.to_thread(_places, self.stack)

    async def judge(self) -> None:
        """Hold history, ledger and store against each other, then let the product audit itself."""
        stores = await _stores_of(self.stack) if self.store_stands else []
        await asyncio.to_thread(self._check, stores)
        if self.store_stands:
            status, report = await asyncio.to_thread(self.stack.command, "audit")
            if status != 0:
                self.wrong(f"flashhold audit ends with {status}: {str(report)[:2000]}")

    def _check(self, stores: list[StoreView]) -> None:
        history = read_history(self.outcome_file)
        verdict = check(history, read_ledger(self.stack.database_url), stores, level=self.level)
        self.outcome.acknowledged = verdict.checked["acknowledged"]
        self.outcome.unknown = verdict.checked["unknown"]
        wrong = [one for one in verdict.violations if self.counted is None or one[0] in self.counted]
        self.outcome.violations += [f"{kind} at {where}: {detail}" for kind, where, detail in wrong]
        kinds = verdict.by_kind.keys() if self.counted is None else self.counted
        missing = sum(verdict.by_kind[kind] for kind in kinds) - len(wrong)
        if missing:
            self.wrong(f"… and {missing} more")

    @property
    def outcome_file(self) -> Path:
        """Where the history is."""
        return self.stack.data_dir.parent / "history.jsonl"


def _places(stack: Stack) -> tuple[int | None, int | None, str | None]:
    """Of all partitions together: each only counts on, and the ledger is never ahead."""
    redis_seq = _store_seqs(stack)
    ledger_seq = halted = None
    try:
        with psycopg.connect(stack.database_url, connect_timeout=2) as database:
            row = database.execute("SELECT sum(seq)::int8, max(halted) FROM partitions").fetchone()
            if row is not None:
                ledger_seq, halted = row
    except psycopg.Error:
        pass
    return redis_seq, ledger_seq, halted


def _store_seqs(stack: Stack) -> int | None:
    seqs = 0
    for partition in stack.partitions:
        with stack.client(partition) as connection:
            try:
                head = Journal(connection, partition).head()
            except FlashHoldError:
                return None
        if head is None:
            return None
        seqs += head.seq
    return seqs


async def _stores_of(stack: Stack) -> list[StoreView]:
    options = EngineOptions(durability=Durability.MEMORY, partitions=len(stack.partitions))
    return [await read_store(stack.redis_url, replace(options, partition=name)) for name in stack.partitions]


@dataclass(frozen=True)
class Setting:
    """How a scenario's deployment and its load are made. `before_api`, `before_redis`: troubles of a proxy there."""

    mix: Mix = field(default_factory=Mix)
    environ: Mapping[str, str] = field(default_factory=dict)
    redis_settings: Mapping[str, str] = field(default_factory=dict)
    buyers: int = 24
    rate_per_s: float = 500.0
    workers: int = 1
    before_api: Troubles | None = None
    before_redis: Troubles | None = None
    stack: Callable[[Path], Stack] | None = None
    """Another deployment than an `OwnStack`."""


def _deployed(setting: Setting, data_dir: Path, proxy: ProxyThread) -> Stack:
    if setting.stack is not None:
        return setting.stack(data_dir)
    # Two HTTP processes: what one of them knows, the other must not need.
    environ = {"FLASHHOLD_PROCESSES": "2", **setting.environ}
    before_redis = proxy.before if setting.before_redis else str
    return OwnStack(
        data_dir,
        environ=environ,
        redis_settings=dict(setting.redis_settings),
        redis_proxy=before_redis,
        workers=setting.workers,
    )


@dataclass(frozen=True)
class Scenario:
    """`torment` is carried out while the load runs, and breaks things `times` times. `target`: the trials that a full
    proof has. `seconds`: what a round takes, about."""

    name: str
    fault: str
    torment: Callable[[Trial], Awaitable[None]]
    setting: Setting = field(default_factory=Setting)
    times: int = 10
    target: int = 100
    seconds: float = 60.0


async def carry_out(scenario: Scenario, seed: int, reports: Path, times: int | None = None) -> Outcome:
    """One round: start everything, torment it, bring it to rest, judge.

    A history with a violation stays in `reports/<scenario>-<seed>/`, beside the deployment's logs. An accident of the
    harness itself is a violation too: nothing was proved.
    """
    directory = Path(tempfile.mkdtemp(prefix="fh-faults-"))
    began = time.monotonic()
    setting = scenario.setting
    proxy = ProxyThread(seed, setting.before_redis or setting.before_api)
    history = HistoryWriter(directory / "history.jsonl")
    stack = _deployed(setting, directory / "data", proxy)
    outcome = Outcome(scenario.name, seed, times or scenario.times)
    try:
        await asyncio.to_thread(stack.start)
        url = proxy.before(stack.url) if setting.before_api else stack.url
        async with RecordingClient(url, stack.admin_key, history) as caller:
            load = Load(caller, seed, setting.mix, buyers=setting.buyers, rate_per_s=setting.rate_per_s)
            trial = Trial(stack, load, history, random.Random(seed), outcome, outcome.times, proxy)
            await load.stock()
            async with load.running():
                await scenario.torment(trial)
        outcome.requests, outcome.unknown = load.requests, load.counts["lost"]
        if trial.judged and trial.store_stands:
            await trial.rest()
        if trial.judged:
            await trial.judge()
    except Skipped as reason:
        outcome.skipped = str(reason)
    except Exception as error:  # noqa: BLE001  one scenario's accident must not end the others
        outcome.violations.append(f"the trial itself failed: {type(error).__name__}: {error}")
        (directory / "data" / "log" / "harness.log").write_text(traceback.format_exc())
    finally:
        history.close()
        await asyncio.to_thread(stack.stop)
        proxy.stop()
        outcome.seconds = time.monotonic() - began
        if outcome.violations:
            _keep(directory, reports / f"{scenario.name}-{seed}", outcome)
        shutil.rmtree(directory, ignore_errors=True)
    return outcome


def _keep(directory: Path, kept: Path, outcome: Outcome) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    shutil.copy(directory / "history.jsonl", kept)
    (kept / "violations.txt").write_text("\n".join(outcome.violations) + "\n")
    for log in (directory / "data" / "log").glob("*.log"):
        shutil.copy(log, kept)
