"""A full disk and a jumping clock, once each."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.surroundings import SCENARIOS
from tests.faults.trial import Scenario, carry_out

pytestmark = pytest.mark.slow

SEED = 20_261_122


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_what_stands_around_redis(scenario: Scenario, tmp_path: Path) -> None:
    """Nothing acknowledged is lost, nothing expires early by the time decided by, and the audit is clean."""
    outcome = await carry_out(replace(scenario, times=1), SEED, tmp_path)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert not outcome.violations, "\n".join(outcome.violations[:20])
    assert outcome.trials >= 1
    assert outcome.acknowledged > 100
