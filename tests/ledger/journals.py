"""Journals made by hand, in the exact form in which the scripts write them, so that they can also be made wrong."""

from typing import Any

import msgspec
import redis

from flashhold.domain.entries import Batch
from flashhold.domain.idempotency import fingerprint, hold_id, key_digest
from flashhold.engine.journal import GENESIS_CHAIN, chain_after
from flashhold.engine.keys import partition_keys

AT_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z, when the first batch of every hand-made journal was decided; each later one is 1 ms later."""

FAR_MS = 4_102_444_800_000
"""2100-01-01T00:00:00Z: a deadline that no test lives to see."""

Wire = list[Any]


def entry(kind: str, changes: list[list[Any]], *, hold: tuple[str, int] = ("", 0), **members: Any) -> Wire:
    """One entry as `lua/include/journal.lua` lays it out."""
    key = members.get("key", "")
    mark = fingerprint(key.encode()) if key else ""
    return [
        kind, *hold, key, mark, members.get("buyer", ""), members.get("expires_ms", 0),
        members.get("reference", ""), members.get("reason", ""), members.get("shortfall", 0), changes,
        members.get("details", False), members.get("movement_hold", ""),
    ]  # fmt: skip


def receipt(sku: str, quantity: int, key: str = "", pool: str = "default") -> Wire:
    return entry("receipt", [[sku, pool, -quantity, quantity, 0, 0, 0, 0]], key=key or f"receipt of {sku}")


def held(seq: int, sku: str, quantity: int = 1, **members: Any) -> Wire:
    """A hold whose entry will have this seq; its key is `order-<seq>`."""
    key = f"order-{seq}"
    changes = [[sku, "default", 0, -quantity, quantity, 0, 0, 0]]
    return entry("hold", changes, hold=(key_digest(key), seq), key=key, **{"expires_ms": FAR_MS, **members})


def committed(seq: int, sku: str, quantity: int = 1, **members: Any) -> Wire:
    """The commit of the hold that `held(seq, …)` made."""
    changes = [[sku, "default", 0, 0, -quantity, quantity, 0, 0]]
    return entry("commit", changes, hold=(key_digest(f"order-{seq}"), seq), **{"expires_ms": FAR_MS, **members})


def released(seq: int, sku: str, quantity: int = 1, kind: str = "release", **members: Any) -> Wire:
    """The release (or expiry) of the hold that `held(seq, …)` made."""
    changes = [[sku, "default", 0, quantity, -quantity, 0, 0, 0]]
    return entry(kind, changes, hold=(key_digest(f"order-{seq}"), seq), **{"expires_ms": FAR_MS, **members})


def id_of(seq: int) -> str:
    """The id of the hold that `held(seq, …)` made."""
    return hold_id("p00", key_digest(f"order-{seq}"), seq)


class HandJournal:
    """A partition's journal and place in a real store, written without the scripts."""

    def __init__(self, url: str, partition: str = "p00") -> None:
        self.client = redis.Redis.from_url(url)
        self.partition = partition
        self.keys = partition_keys(partition)
        self.epoch, self.seq, self.chain = 1, 0, GENESIS_CHAIN
        self._note()

    def put(self, *entries: Wire, **wrong: Any) -> str:
        """Append a batch and move the place; `wrong` overrides what is written. Returns the stream id."""
        return self.put_payload(msgspec.msgpack.encode(list(entries)), len(entries), **wrong)

    def put_payload(self, payload: bytes, count: int, /, **wrong: Any) -> str:
        """The same for whatever bytes, under a chain that is right for them."""
        at_ms = AT_MS + self.seq
        batch = Batch(self.partition, "", self.epoch, self.seq + 1, count, at_ms, "", payload)
        self.chain = chain_after(self.chain, batch)
        self.seq += count
        fields = {
            "epoch": batch.epoch, "seq": batch.first_seq, "count": batch.count, "at": at_ms, "chain": self.chain,
            "payload": payload,
        }  # fmt: skip
        stream_id: bytes = self.client.xadd(self.keys.journal, {**fields, **wrong})
        self._note()
        return stream_id.decode()

    def fill(self, batches: int, size: int = 4) -> None:
        """A receipt of shoes and socks, then so many batches of holds and, a batch later, their commits or releases."""
        self.put(receipt("shoe", 100_000), receipt("sock", 100_000))
        born: list[tuple[int, str]] = []
        for number in range(batches):
            entries, now = [], []
            for _ in range(size):
                seq = self.seq + 1 + len(entries)
                sku = "shoe" if seq % 3 else "sock"
                entries.append(held(seq, sku, buyer=f"buyer-{seq % 5}"))
                now.append((seq, sku))
            for seq, sku in born:
                entries.append(committed(seq, sku, reference=f"sale-{seq}") if number % 2 else released(seq, sku))
            self.put(*entries)
            born = now

    def ids(self) -> list[str]:
        """Stream ids of the batches that the journal still has."""
        records: Any = self.client.xrange(self.keys.journal)
        return [stream_id.decode() for stream_id, _ in records]

    def close(self) -> None:
        self.client.close()

    def _note(self) -> None:
        place = {"epoch": self.epoch, "seq": self.seq, "chain": self.chain, "clock": AT_MS + self.seq}
        self.client.hset(self.keys.meta, mapping=place)
