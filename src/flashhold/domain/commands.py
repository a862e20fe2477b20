"""Commands: one frozen value a verb. `key` is the idempotency key; what is None was not given."""

from typing import Any, NamedTuple

from flashhold.domain.model import DEFAULT_POOL, Line
from flashhold.domain.revival import RevivedHold


class Hold(NamedTuple):
    """Claim all lines or none (with `allow_partial`: what is left of each). `ttl_ms` None: the policy's."""

    key: str
    lines: tuple[Line, ...]
    buyer: str | None = None
    ttl_ms: int | None = None
    allow_partial: bool = False
    metadata: str | None = None


class HoldPart(NamedTuple):
    """One hold of a cart over several partitions (`domain/carts.py`), all lines or none, stored under `digest`.

    `lives_on`: it does not expire by itself. `meaning`: what its key stands for, since neither deadline nor division
    into parts is the client's. `refusal`: (reason, detail as the scripts have it), the answer where the key is new."""

    key: str
    digest: str
    meaning: str
    lines: tuple[Line, ...]
    metadata: str
    buyer: str | None = None
    ttl_ms: int | None = None
    lives_on: bool = False
    refusal: tuple[str, dict[str, Any]] | None = None


class Commit(NamedTuple):
    """Sell a hold's units, all or the `lines` named; the rest is released in the same step."""

    hold: str
    reference: str | None = None
    lines: tuple[Line, ...] | None = None
    reacquire: bool = False
    key: str | None = None


class Release(NamedTuple):
    """Give a hold's units back."""

    hold: str
    reason: str | None = None
    key: str | None = None


class Extend(NamedTuple):
    """Move a hold's deadline to now + `ttl_ms`, never back, at most to the policy's longest life."""

    hold: str
    ttl_ms: int
    key: str | None = None


class Amend(NamedTuple):
    """Make a hold's lines these, all or nothing; its own units do not count against it."""

    hold: str
    lines: tuple[Line, ...]
    key: str | None = None


class Move(NamedTuple):
    """A movement of stock; `kind` is one of `entries.MOVEMENT_KINDS`, `quantity` is signed only for `adjustment`.

    `ask_ledger`: where the store has forgotten `hold`, refuse without remembering that for the key: the ledger is to be
    asked, and the movement comes again with what that knows in `recalled`."""

    key: str
    kind: str
    sku: str
    quantity: int
    pool: str = DEFAULT_POOL
    reason: str | None = None
    reference: str | None = None
    hold: str | None = None
    to_pool: str | None = None
    ask_ledger: bool = False
    recalled: RevivedHold | None = None


class SetPolicy(NamedTuple):
    """Replace or merge a SKU's policy. `fields`: contract names with times and ttls in ms (`hold_ttl_ms`,
    `hold_ttl_max_ms`, `opens_at_ms`, `closes_at_ms`, `class`, `max_per_buyer`, `partition_key`, `durability`, `pools`:
    {pool: {safety_stock, oversell_allowance}}); a field given as None is unset."""

    sku: str
    fields: dict[str, Any]
    replace: bool
    key: str | None = None
    aim: str = ""
    moves: int = 0
    """Both for `Partitions` alone: where the SKU is to be, as lua/verbs/policy.lua says."""


class CountBuyers(NamedTuple):
    """Part `part` (from 1) of what buyers held or had bought before their SKU's first limit: {buyer: units}."""

    sku: str
    part: int
    last: bool
    units: dict[str, int]


class ReadHold(NamedTuple):
    """A hold as it stands now; an overdue one is expired first."""

    hold: str


class ReadStock(NamedTuple):
    """One pool of one SKU as it stands now; overdue holds are expired first."""

    sku: str
    pool: str = DEFAULT_POOL


class Sweep(NamedTuple):
    """Expire at most `expire_max` overdue holds and forget at most `purge_max` records past their time."""

    expire_max: int = 256
    purge_max: int = 256


Command = (
    Hold | HoldPart | Commit | Release | Extend | Amend | Move | SetPolicy | CountBuyers | ReadHold | ReadStock | Sweep
)
