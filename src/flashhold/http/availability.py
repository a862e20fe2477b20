"""The projection for product pages: sellable per pool, at most so old, one read of the store for all who ask."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from flashhold.domain.errors import StoreUnavailable
from flashhold.domain.instants import rfc3339

Read = Callable[[Sequence[str]], Awaitable[dict[str, dict[str, int]]]]

SKUS_KEPT_MAX = 100_000
"""About 50 MB. Beyond it the projection starts anew: unknown SKUs are kept too, and anybody can make those up."""


class Seen(NamedTuple):
    """What one SKU had when it was last read; `pools` is None for a SKU that is not known."""

    read_at: float
    read_at_ms: int
    pools: dict[str, int] | None


class Projection:
    """A cache of `sellable` that is never older than `max_age_ms` when it is served.

    While one read is under way, whoever asks for something stale waits for the next one, which then carries the SKUs
    of all of them: a crowd on one product page costs the store one read every `max_age_ms`.
    """

    def __init__(self, read: Read, max_age_ms: int, patience_ms: int = 2_000) -> None:
        self._read = read
        self._patience_s = patience_ms / 1000
        self.max_age_ms = max_age_ms
        self._seen: dict[str, Seen] = {}
        self._wanted: dict[str, None] = {}
        self._next: asyncio.Task[dict[str, Seen]] | None = None
        self._reading = asyncio.Lock()

    async def look(self, skus: Sequence[str]) -> dict[str, Seen]:
        """Each SKU as last seen, at most `max_age_ms` ago. Raises what the read raises, and StoreUnavailable
        where that read and the one before it take longer than the patience."""
        since = time.monotonic() - self.max_age_ms / 1000
        fresh = {sku: self._seen[sku] for sku in skus if sku in self._seen and self._seen[sku].read_at >= since}
        stale = [sku for sku in skus if sku not in fresh]
        if stale:
            self._wanted.update(dict.fromkeys(stale))
            if self._next is None:
                self._next = asyncio.create_task(self._refresh())
                self._next.add_done_callback(
                    lambda done: done.cancelled() or done.exception()
                )  # seen, if by nobody else
            # Shielded: others wait for the same read, and one of them going away must not take it from them.
            try:
                async with asyncio.timeout(self._patience_s):
                    fresh |= await asyncio.shield(self._next)
            except TimeoutError:
                raise StoreUnavailable("the store is away or too slow to be read in time") from None
        return {sku: fresh[sku] for sku in skus}

    async def _refresh(self) -> dict[str, Seen]:
        async with self._reading:
            wanted, self._wanted, self._next = list(self._wanted), {}, None
            if len(self._seen) + len(wanted) > SKUS_KEPT_MAX:
                self._seen.clear()
            read_at, read_at_ms = time.monotonic(), time.time_ns() // 1_000_000
            found = await self._read(wanted)
            seen = {sku: Seen(read_at, read_at_ms, found.get(sku)) for sku in wanted}
            self._seen |= seen
            return seen


def projection_body(seen: dict[str, Seen], max_age_ms: int) -> tuple[bytes, bytes]:
    """The answer's JSON, as old as its oldest item, and a weak ETag over what was seen, not over when."""
    items: list[dict[str, Any]] = [
        {"sku": sku, "pool": pool, "sellable": sellable}
        for sku, one in seen.items()
        for pool, sellable in sorted((one.pools or {}).items())
    ]
    unknown = [sku for sku, one in seen.items() if one.pools is None]
    as_of = rfc3339(min(one.read_at_ms for one in seen.values()))
    what = msgspec.json.encode([items, unknown])
    body = {"as_of": as_of, "max_age_ms": max_age_ms, "items": items, "unknown": unknown}
    return msgspec.json.encode(body), b'W/"%s"' % blake2b(what, digest_size=12).hexdigest().encode()
