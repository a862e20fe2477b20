"""Every key of a partition, and what it holds. Keys are built here and nowhere else.

All names carry the partition as their hash tag, so that a partition lives in one slot, and none has a Redis TTL: a key
that expires by itself can vanish on a clock jump. User text never comes into a key's name.
"""

from typing import NamedTuple

FIRST_PARTITION = "p00"
"""The one that every deployment has."""


class Keys(NamedTuple):
    """In the order in which the scripts take them."""

    meta: str
    """hash: epoch, seq, clock (ms), chain head, schema, number of pools, settings that all processes share"""
    stock: str
    """hash: sku → policy; sku NUL pool → counters (msgpack arrays; layout in lua/include/stock.lua)"""
    holds: str
    """hash: digest of an idempotency key → the hold it made, or the answer it got (lua/include/records.lua)"""
    due: str
    """sorted set, all scores 0, ordered as bytes: pool number, deadline, digests of holds that were made together"""
    wake: str
    """sorted set: pool number → its earliest deadline (ms)"""
    ended: str
    """list: digests of ended holds and remembered answers with the time to forget them, in order of time"""
    refused: str
    """list: the same for refusals, which are kept for a shorter time"""
    buyers: str
    """hash: sku NUL buyer → units held or bought, for SKUs with a limit per buyer"""
    journal: str
    """stream: one record a batch, until the ledger has it"""


def partition_keys(partition: str) -> Keys:
    """The keys of the partition, such as `{p00}:stock`."""
    return Keys(*(f"{{{partition}}}:{name}" for name in Keys._fields))
