"""What the engine speaks of: lines, holds, stock, policies. Quantities are units, times are ms since 1970 UTC.

All are `NamedTuple`s: immutable, and built at C speed on the hot path.
"""

from enum import IntEnum
from typing import NamedTuple

DEFAULT_POOL = "default"


class HoldState(IntEnum):
    """The numbers are those of the stored record; the last three states are final."""

    HELD = 0
    COMMITTED = 1
    RELEASED = 2
    EXPIRED = 3

    @property
    def label(self) -> str:
        return self.name.lower()


class Line(NamedTuple):
    """So many units of one SKU, from one pool."""

    sku: str
    quantity: int
    pool: str = DEFAULT_POOL


class HoldLine(NamedTuple):
    """A line of a hold. `requested` differs from `quantity` only where a partial hold got less."""

    sku: str
    pool: str
    quantity: int
    committed: int = 0
    released: int = 0
    requested: int | None = None


class Hold(NamedTuple):
    """A time-limited claim as it stood after the entry (`epoch`, `seq`) that last changed it."""

    id: str
    state: HoldState
    lines: tuple[HoldLine, ...]
    buyer: str | None
    created_at_ms: int
    expires_at_ms: int
    ended_at_ms: int | None
    reference: str | None
    reason: str | None
    reacquired: bool
    metadata: str | None
    """Canonical JSON text of an object, or None for `{}`."""
    partition: str
    epoch: int
    seq: int


class Stock(NamedTuple):
    """One pool of one SKU at one instant; `as_of_ms` is the store's clock."""

    sku: str
    pool: str
    available: int
    held: int
    committed: int
    damaged: int
    in_transit: int
    safety_stock: int
    oversell_allowance: int
    partition: str
    epoch: int
    seq: int
    as_of_ms: int
    policy: "Policy"

    @property
    def on_hand(self) -> int:
        return self.available + self.held + self.committed

    @property
    def sellable(self) -> int:
        return self.available - self.safety_stock + self.oversell_allowance


class PoolCounters(NamedTuple):
    """A pool's stored counters, in units; `number` is its place in the deadline index."""

    sku: str
    pool: str
    number: int
    available: int
    held: int
    committed: int
    damaged: int
    in_transit: int
    safety_stock: int
    oversell_allowance: int
    past: int
    """Units that were committed and no longer are: shipped or cancelled."""


class PoolPolicy(NamedTuple):
    """The share of a policy that belongs to one pool, in units."""

    safety_stock: int = 0
    oversell_allowance: int = 0


class Policy(NamedTuple):
    """The rules of one SKU. None means: not set, the deployment's default applies."""

    sku: str
    sku_class: str | None
    hold_ttl_ms: int | None
    hold_ttl_max_ms: int | None
    max_per_buyer: int | None
    opens_at_ms: int | None
    closes_at_ms: int | None
    partition_key: str | None
    durability: str | None
    pools: dict[str, PoolPolicy]
    created: bool
    """True in the answer to the command that made the SKU known."""
    partition: str
    epoch: int
    seq: int
    counted: int = 0
    """Buyers' units: 0 not counted, -1 all, n > 0: since the first limit, and n - 1 parts of those before it."""
    moves: int = 0
    """How often the SKU has gone from one partition to another."""


class Swept(NamedTuple):
    """What one bounded sweep did. `lateness_max_ms`: how long the latest of them had been overdue."""

    expired: int
    purged: int
    lateness_max_ms: int
    more: bool
    next_deadline_ms: int | None
