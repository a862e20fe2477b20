"""Are the store's counters and rules what the ledger's balances and policies are at the same place?"""

from collections.abc import Iterator, Mapping
from typing import Any

from flashhold.domain.entries import BUCKETS
from flashhold.domain.model import PoolCounters
from flashhold.engine.engine import SkuRules, Snapshot
from flashhold.ledger.standing import Standing
from flashhold.services.records_check import Difference

IN_STORE = BUCKETS[1:]
"""What is outside is nobody's stock: the store does not count it."""
_NOTHING = (0,) * len(BUCKETS)


def counter_differences(snapshot: Snapshot, standing: Standing) -> Iterator[Difference]:
    """`standing`: the ledger at the snapshot's place."""
    place, cursor = snapshot.place, standing.cursor
    yield from garbage_differences(snapshot)
    if place.seq == cursor.seq and place.chain != cursor.chain:
        yield Difference("chain", f"store at {place.epoch}/{place.seq}", cursor.chain, place.chain)
    stored = {(pool.sku, pool.pool): pool for pool in snapshot.pools}
    for name in sorted(stored.keys() | standing.balances.keys()):
        yield from pool_differences(name, stored.get(name), standing.balances.get(name, _NOTHING))
    yield from rule_differences(snapshot, standing.policies)


def garbage_differences(snapshot: Snapshot) -> Iterator[Difference]:
    """Fields of the stock that cannot be read, and pools that two share a number."""
    for where in snapshot.garbage:
        yield Difference("garbage", where, "what a script wrote", "something else")
    named: dict[int, PoolCounters] = {}
    for pool in snapshot.pools:
        other = named.setdefault(pool.number, pool)
        if other is not pool:
            where = f"{pool.sku}, pool {pool.pool}"
            yield Difference("number", where, "its own", f"that of {other.sku}, pool {other.pool}: {pool.number}")


def pool_differences(
    name: tuple[str, str], stored: PoolCounters | None, balance: tuple[int, ...]
) -> Iterator[Difference]:
    """A pool that the store does not have counts as zero."""
    for bucket, expected in zip(IN_STORE, balance[1:], strict=True):
        found = getattr(stored, bucket) if stored else 0
        if expected != found:
            yield Difference("store", f"{name[0]}, pool {name[1]}, {bucket}", str(expected), str(found))


def rule_differences(snapshot: Snapshot, policies: Mapping[str, dict[str, Any] | None]) -> Iterator[Difference]:
    """`policies`: details of the last policy of each SKU that has one, None where that is not to be compared."""
    pools = {(pool.sku, pool.pool): pool for pool in snapshot.pools}
    names: dict[str, set[str]] = {}
    for sku, pool in pools:
        names.setdefault(sku, set()).add(pool)
    for (sku, name), stored in pools.items():
        details = policies.get(sku, {})
        if details is None:
            continue
        limits = details.get("pools", {}).get(name, (0, 0))
        found = (stored.safety_stock, stored.oversell_allowance)
        for rule, should, does in zip(("safety_stock", "oversell_allowance"), limits, found, strict=True):
            if should != does:
                yield Difference("policy", f"{sku}, pool {name}, {rule}", str(should), str(does))
    kept = {rules.sku: rules for rules in snapshot.skus}
    for sku in sorted((kept.keys() | names.keys() | policies.keys()) - set(snapshot.garbage)):
        details = policies.get(sku, {})
        if sku not in kept:
            yield Difference("policy", sku, "a SKU", "none")
        elif details is not None:
            for rule, expected, found_rule in _rules(kept[sku], details):
                if expected != found_rule:
                    yield Difference("policy", f"{sku}, {rule}", str(expected), str(found_rule))
            lacking = names.get(sku, set()) ^ set(kept[sku].pools)
            if lacking:
                yield Difference(
                    "policy", f"{sku}, pools", ", ".join(sorted(names.get(sku, set()))), ", ".join(kept[sku].pools)
                )


def _rules(rules: SkuRules, details: dict[str, Any]) -> Iterator[tuple[str, object, object]]:
    for rule in ("hold_ttl_ms", "hold_ttl_max_ms", "max_per_buyer", "opens_at_ms", "closes_at_ms"):
        yield rule, details.get(rule, 0), getattr(rules, rule)
    yield "class", details.get("class", ""), rules.sku_class
    yield "partition_key", details.get("partition_key", ""), rules.partition_key
    yield "durability", details.get("durability", ""), rules.durability
    yield "elsewhere", details.get("elsewhere", ""), rules.elsewhere
    yield "moves", details.get("moves", 0), rules.moves
    # How many parts of what was before have been added is told by no entry, but whether buyers are counted is.
    yield "counted", bool(details.get("counted", 0)), bool(rules.counted)
