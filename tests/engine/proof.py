"""What a journal must show whatever was sent: no gap, no break, nothing out of nothing, nothing oversold."""

import hashlib
from collections import Counter
from itertools import groupby, pairwise

import redis

from flashhold import Engine
from flashhold.domain.entries import BUCKETS, MOVEMENT_KINDS, Batch, Entry
from flashhold.engine.journal import Journal, decode_batch

Counters = Counter[tuple[str, str, str]]
"""(sku, pool, bucket) → units."""


def next_head(previous: str, batch: Batch) -> str:
    """The head of the chain after the batch, as the documentation gives it and not as the product computes it."""
    payload = hashlib.sha1(batch.payload).hexdigest()
    link = f"{previous}:{batch.epoch}:{batch.first_seq}:{batch.count}:{batch.at_ms}:{payload}"
    return hashlib.sha1(link.encode()).hexdigest()


def whole_journal(url: str) -> list[Entry]:
    """Every entry, after checking the order and the chain."""
    written: list[Entry] = []
    chain, after = "0" * 40, "0-0"
    with redis.Redis.from_url(url) as store:
        journal = Journal(store, "p00")
        while batches := journal.read(after, 500, 0):
            for batch in batches:
                assert batch.first_seq == len(written) + 1, "a gap in seq"
                chain = next_head(chain, batch)
                assert chain == batch.chain, "the chain breaks"
                written += decode_batch(batch)
                after = batch.stream_id
    assert [entry.seq for entry in written] == list(range(1, len(written) + 1))
    assert all(earlier.at_ms <= later.at_ms for earlier, later in pairwise(written))
    return written


def fold(written: list[Entry]) -> Counters:
    """Counters from the entries alone; checks on the way that nothing comes from nowhere and nothing is oversold.

    Without safety stock or allowances: what is available may be negative only in an entry marked `shortfall`.
    """
    counters: Counters = Counter()
    for entry in written:
        for sku, changes in groupby(sorted(entry.changes), key=lambda change: change.sku):
            assert sum(sum(change[2:]) for change in changes) == 0, f"{entry.kind} {entry.seq}: {sku} from nowhere"
        for change in entry.changes:
            for bucket, units in zip(BUCKETS, change[2:], strict=True):
                counters[change.sku, change.pool, bucket] += units
        for change in entry.changes:
            left = [counters[change.sku, change.pool, bucket] for bucket in ("available", "held", "committed")]
            assert min(left[1:]) >= 0, f"{entry.kind} {entry.seq} leaves {left}"
            assert left[0] >= 0 or entry.shortfall, f"{entry.kind} {entry.seq} oversells: {left}"
    return Counter({place: units for place, units in counters.items() if units})


def lives(written: list[Entry]) -> dict[str, list[str]]:
    """What happened to each hold; checks that each was made once and ended at most once, or was re-acquired."""
    kinds: dict[str, list[str]] = {}
    for entry in written:
        if entry.hold is not None and entry.kind not in MOVEMENT_KINDS:
            kinds.setdefault(entry.hold, []).append(entry.kind)
    for hold, story in kinds.items():
        assert story[0] == "hold", f"{hold} begins with {story}"
        assert story.count("hold") == 1, f"{hold} was made twice: {story}"
        ends = [kind for kind in story if kind in ("commit", "release", "expire")]
        assert ends in ([], ["commit"], ["release"], ["expire"], ["expire", "commit"]), f"{hold}: {story}"
    return kinds


async def counters_agree(engine: Engine, written: list[Entry]) -> Counters:
    """The store's counters are what its own journal adds up to."""
    folded = fold(written)
    stored: Counters = Counter()
    for pool in (await engine.snapshot()).pools:
        for bucket in BUCKETS[1:]:
            stored[pool.sku, pool.pool, bucket] = getattr(pool, bucket)
    inside = {place: units for place, units in folded.items() if place[2] != "outside"}
    assert {place: units for place, units in stored.items() if units} == inside
    return folded
