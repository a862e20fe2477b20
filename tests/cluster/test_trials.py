"""A whole deployment on a cluster, for half a minute: a primary dies, slots move; and a lie about it that must show."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.clusters import SETTING, lagging_replicas_take_over, on, primaries_die, slots_move
from tests.faults.trial import Scenario, Trial, carry_out

pytestmark = pytest.mark.slow

SEED = 20_261_122
MOVES = 5


async def test_half_a_minute_on_a_cluster(tmp_path: Path) -> None:
    """A primary is killed under load and busy slots move: nothing acknowledged at `replica` is lost, buyers of other
    primaries see no error, and those of a slot that moves neither."""

    async def both(trial: Trial) -> None:
        await slots_move(trial, MOVES)
        await primaries_die(trial, 1)

    outcome = await carry_out(Scenario("short-cluster", "a primary dies, slots move", both, SETTING), SEED, tmp_path)
    assert not outcome.violations, "\n".join(outcome.violations[:20])
    assert outcome.trials == MOVES + 1
    assert outcome.acknowledged > 100


async def test_a_lie_about_replicas_shows(tmp_path: Path) -> None:
    """Level `replica` claimed where nobody waits for one: the suite finds what a lagging replica then loses."""
    lie = replace(SETTING, stack=on("valkey", durability="disk"))

    async def with_the_worker_still(trial: Trial) -> None:
        await lagging_replicas_take_over(trial, still=1.0)

    scenario = Scenario("short-lie", "disk called replica", with_the_worker_still, lie, times=1)
    outcome = await carry_out(scenario, SEED, tmp_path)
    assert any("acknowledged-lost" in sentence for sentence in outcome.violations), outcome
