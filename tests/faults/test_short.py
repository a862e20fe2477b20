"""The fault suite in a minute: every kind of death once, lost replies, crowds on one key, and a lie that must show."""

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flashhold.embedded import processes
from tests.faults import injectors
from tests.faults.injectors import Broken
from tests.faults.load import Mix
from tests.faults.proxy import Troubles
from tests.faults.scenarios import BUSY, DEATHS, HTTP_TROUBLES, kills, many_requests
from tests.faults.trial import Scenario, Setting, Trial, carry_out

pytestmark = pytest.mark.slow

SEED = 20_261_121
REQUESTS = 3_000


async def test_a_minute_of_everything(tmp_path: Path) -> None:
    """kill -9 of worker, Redis, Postgres and API under load, then replies lost: one effect a key, and nothing lost."""

    async def everything(trial: Trial) -> None:
        await kills(*DEATHS, trial=trial, follow_ledger=False)
        assert trial.outcome.trials == len(DEATHS)
        assert trial.proxy.proxy is not None
        trial.proxy.proxy.troubles = HTTP_TROUBLES  # meanwhile the dead worker's lease runs out
        await many_requests(trial.load.requests + REQUESTS, trial=trial)

    setting = replace(BUSY, rate_per_s=600.0, mix=Mix(at_once=0.2, cancelled=0.1), before_api=Troubles())
    scenario = Scenario("short", "each process dies, replies get lost", everything, setting, times=len(DEATHS))
    outcome = await carry_out(scenario, SEED, tmp_path)
    assert not outcome.violations, "\n".join(outcome.violations[:20])
    assert outcome.trials > REQUESTS
    assert outcome.acknowledged > REQUESTS / 3
    assert outcome.unknown > REQUESTS / 50


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to slow fsync down")
async def test_a_lie_about_durability_shows(tmp_path: Path) -> None:
    """Level `disk` claimed for a Redis with `appendfsync everysec`: the suite finds what a death then loses."""
    lie = Setting(environ={"FLASHHOLD_DURABILITY": "memory"}, redis_settings={"appendfsync": "everysec"})

    async def killed_with_a_full_buffer(trial: Trial) -> None:
        """While an fsync takes long, Redis keeps for up to two seconds what it has already answered."""

        async def killed() -> Broken:
            pid = await injectors.living(trial.stack, "redis")
            async with injectors.strained_fsync(pid, delay_ms=3000):
                with injectors.client(trial.stack) as store:
                    await asyncio.to_thread(processes.wait_until, lambda: _keeps_what_it_answered(store), 10)
                return await injectors.kill(trial.stack, "redis", trial.rng)

        await trial.broken("kill -9 redis with a full buffer", killed)

    scenario = Scenario("short-lie", "everysec called disk", killed_with_a_full_buffer, lie, times=1)
    outcome = await carry_out(scenario, SEED, tmp_path)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert any("acknowledged-lost" in sentence for sentence in outcome.violations), outcome


def _keeps_what_it_answered(store: Any) -> bool:
    """Whether Redis lets grow what it has not even given to the system, while answers go out."""
    before = store.info("persistence")["aof_buffer_length"]
    time.sleep(0.2)
    return bool(0 < before < store.info("persistence")["aof_buffer_length"] - before)
