"""The ordinary course of a busy shop, engine against reference, with proof that everything did happen in it."""

import os
from collections import Counter

import pytest
import redis

from flashhold import Engine, EngineOptions
from tests.engine.crowd import Crowd
from tests.engine.duel import Duel

SEED = int(os.environ.get("FLASHHOLD_SEED", "20261121"))
LIVES = int(os.environ.get("FLASHHOLD_LIVES", "30"))
FOREVER_MS = 10**13
"""Keys are remembered this long here: forgetting has tests of its own."""

MUST_HAPPEN = {
    "Hold": "applied replayed insufficient-stock purchase-limit-exceeded sale-not-open sale-closed invalid-request "
    "idempotency-key-reused",
    "Commit": "applied replayed already-committed hold-expired hold-released insufficient-stock invalid-request "
    "idempotency-key-reused unknown-hold",
    "Release": "applied replayed already-committed hold-expired idempotency-key-reused",
    "Extend": "applied replayed already-committed hold-expired hold-released",
    "Amend": "applied replayed already-committed hold-expired hold-released insufficient-stock",
    "receipt": "applied replayed",
    "shipment": "applied movement-refused",
    "return": "applied movement-refused",
    "damage": "applied movement-refused",
    "adjustment": "applied movement-refused",
    "transfer": "applied movement-refused",
    "cancel": "applied movement-refused",
    "SetPolicy": "applied replayed policy-refused",
    "ReadHold": "applied unknown-hold",
    "ReadStock": "applied",
}


@pytest.mark.timeout(300)
async def test_a_crowd_gets_the_answers_of_the_reference(redis_url: str) -> None:
    """Several shops trade from opening to closing without a single difference in answers, entries or counters."""
    print(f"FLASHHOLD_SEED={SEED} FLASHHOLD_LIVES={LIVES}")
    options = EngineOptions(retention_ms=FOREVER_MS, refused_retention_ms=FOREVER_MS)
    seen: Counter[tuple[str, str]] = Counter()
    for life in range(LIVES):
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        async with await Engine.connect(redis_url, options=options) as engine:
            await engine.install()
            duel = await Duel(engine, redis_url).start()
            crowd = Crowd(SEED + life)
            await crowd.live(duel, batches=60)
            duel.close()
            seen += crowd.seen
    missing = [(verb, one) for verb, all_of in MUST_HAPPEN.items() for one in all_of.split() if not seen[verb, one]]
    assert not missing, f"never happened, so nothing was shown about it: {missing}"
