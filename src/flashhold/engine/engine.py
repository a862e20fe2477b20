"""The engine: one async method a verb. Usable by itself; the HTTP door is only one of its callers."""

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from flashhold.domain import commands, model
from flashhold.domain.commands import Command
from flashhold.domain.entries import Entry
from flashhold.domain.errors import Overloaded, Recovering
from flashhold.domain.model import DEFAULT_POOL, Line, PoolCounters
from flashhold.domain.outcomes import Applied, Outcome
from flashhold.engine.batcher import Batcher
from flashhold.engine.codec import unpack
from flashhold.engine.durability import Durability
from flashhold.engine.journal import Place
from flashhold.engine.keys import partition_keys
from flashhold.engine.link import Link
from flashhold.engine.options import EngineOptions
from flashhold.engine.survey import Surveyor


class SkuRules(NamedTuple):
    """A SKU's stored rules, 0 or '' where not set; `pools`: their names."""

    sku: str
    hold_ttl_ms: int
    hold_ttl_max_ms: int
    max_per_buyer: int
    opens_at_ms: int
    closes_at_ms: int
    sku_class: str
    partition_key: str
    counted: int
    pools: list[str]
    durability: str
    elsewhere: str = ""
    """The partition that the SKU left this one for."""
    moves: int = 0


class Snapshot(NamedTuple):
    """Every counter at one instant. `records`: stored holds and remembered answers; `deadlines`: index members;
    `garbage`: fields of the stock that no script wrote so."""

    place: Place
    records: int
    deadlines: int
    pools: list[PoolCounters]
    skus: list[SkuRules]
    garbage: list[str]


class Engine:
    """Decides holds and movements of one partition, atomically and in batches.

    Every verb may raise `Overloaded` (not sent), `StoreUnavailable` (fate unknown: repeat with the same key),
    `Recovering` and `NotDurable`. A cancelled call's command may still take effect: repeat it with the same key.
    """

    def __init__(self, link: Link, options: EngineOptions) -> None:
        self._link = link
        self._options = options
        self._batcher = Batcher(link, options)
        self._stock_key = partition_keys(options.partition).stock
        self.survey = Surveyor(link, options)
        """Reads pages of records, for the audit."""
        self.submit = self._batcher.submit
        """submit(command) → future of its outcome: the verbs without a coroutine in between."""

    @classmethod
    async def connect(cls, url: str, *, options: EngineOptions | None = None) -> Self:
        """Connects to a Redis or Valkey server (`redis://`, `rediss://`, `unix://`, `redis+sentinel://`).

        Raises StoreUnavailable when it cannot be reached, NotDurable when it cannot keep the level's promise,
        Misconfigured when its data is another deployment's.
        """
        options = options or EngineOptions()
        link = Link(url, options)
        engine = cls(link, options)
        await link.open()
        return engine

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Lets what is under way finish, then closes the connection."""
        await self._batcher.drain()
        await self._link.close()

    async def install(self) -> None:
        """Makes the partition in an empty store; does nothing where it is. Compare with the ledger first: an empty
        store beside a ledger with entries is a loss, not a beginning."""
        await self._link.install()

    @property
    def partition(self) -> str:
        return self._options.partition

    @property
    def retention_ms(self) -> int:
        return self._options.retention_ms

    @property
    def durability(self) -> Durability:
        """The level of whatever no policy raises."""
        return self._options.durability

    async def confirm(self, level: Durability, epoch: int, seq: int) -> None:
        """Returns once all that was answered over this connection, and the ledger up to this place, is as durable as
        the level says. Raises NotDurable."""
        await self._batcher.confirm(level, epoch, seq)

    @property
    def ttls_ms(self) -> tuple[int, int]:
        """How long a hold lives where no policy says, usually and at most."""
        return self._options.hold_ttl_ms, self._options.hold_ttl_max_ms

    @property
    def seen(self) -> tuple[int, int]:
        """The furthest epoch and seq that the store has shown this engine, (0, 0) before the first batch."""
        return self._link.furthest

    def seen_before(self, epoch: int) -> tuple[int, int]:
        """The same, but of what was before this epoch."""
        return self._link.furthest if self._link.furthest[0] < epoch else self._link.furthest_before

    @property
    def waiting(self) -> int:
        """Commands that no batch has taken yet."""
        return self._batcher.waiting_commands

    async def hold(
        self,
        *,
        key: str,
        lines: Iterable[Line],
        buyer: str | None = None,
        ttl_ms: int | None = None,
        allow_partial: bool = False,
        metadata: str | None = None,
    ) -> Outcome[model.Hold]:
        """Claims all lines or none; with `allow_partial` what is left of each, at least one unit in all."""
        command = commands.Hold(key, tuple(lines), buyer, ttl_ms, allow_partial, metadata)
        outcome: Outcome[model.Hold] = await self.submit(command)
        return outcome

    async def commit(
        self,
        hold: str,
        *,
        reference: str | None = None,
        lines: Iterable[Line] | None = None,
        reacquire: bool = False,
        key: str | None = None,
    ) -> Outcome[model.Hold]:
        """Sells the hold's units, or the `lines` of them, and releases the rest. `reacquire`: an expired hold takes its
        units again first, if they are still there."""
        some = None if lines is None else tuple(lines)
        outcome: Outcome[model.Hold] = await self.submit(commands.Commit(hold, reference, some, reacquire, key))
        return outcome

    async def release(self, hold: str, *, reason: str | None = None, key: str | None = None) -> Outcome[model.Hold]:
        """Gives the hold's units back."""
        outcome: Outcome[model.Hold] = await self.submit(commands.Release(hold, reason, key))
        return outcome

    async def extend(self, hold: str, *, ttl_ms: int, key: str | None = None) -> Outcome[model.Hold]:
        """Moves the deadline to now + `ttl_ms`, never back, at most to the policy's longest life."""
        outcome: Outcome[model.Hold] = await self.submit(commands.Extend(hold, ttl_ms, key))
        return outcome

    async def amend(self, hold: str, *, lines: Iterable[Line], key: str | None = None) -> Outcome[model.Hold]:
        """Makes the hold's lines these, all or nothing; its own units do not count against it."""
        outcome: Outcome[model.Hold] = await self.submit(commands.Amend(hold, tuple(lines), key))
        return outcome

    async def move(
        self,
        kind: str,
        sku: str,
        quantity: int,
        *,
        key: str,
        pool: str = DEFAULT_POOL,
        reason: str | None = None,
        reference: str | None = None,
        hold: str | None = None,
        to_pool: str | None = None,
    ) -> Outcome[Entry]:
        """Records a movement of stock; `kind` is one of `entries.MOVEMENT_KINDS`."""
        command = commands.Move(key, kind, sku, quantity, pool, reason, reference, hold, to_pool)
        outcome: Outcome[Entry] = await self.submit(command)
        return outcome

    async def set_policy(
        self, sku: str, fields: dict[str, Any], *, replace: bool, key: str | None = None
    ) -> Outcome[model.Policy]:
        """Replaces or merges the SKU's policy; `fields` as `commands.SetPolicy` says."""
        outcome: Outcome[model.Policy] = await self.submit(commands.SetPolicy(sku, fields, replace, key))
        return outcome

    async def count_buyers(self, sku: str, *, part: int, last: bool, units: dict[str, int]) -> Outcome[model.Policy]:
        """Adds what buyers held or had bought before the SKU's first limit; each part takes effect once, in turn."""
        outcome: Outcome[model.Policy] = await self.submit(commands.CountBuyers(sku, part, last, units))
        return outcome

    async def read_hold(self, hold: str) -> Outcome[model.Hold]:
        """The hold as it stands now."""
        outcome: Outcome[model.Hold] = await self.submit(commands.ReadHold(hold))
        return outcome

    async def read_stock(self, sku: str, pool: str = DEFAULT_POOL) -> Outcome[model.Stock]:
        """The pool as it stands now, with nothing overdue counted as held."""
        outcome: Outcome[model.Stock] = await self.submit(commands.ReadStock(sku, pool))
        return outcome

    async def sweep(self, *, expire_max: int = 256, purge_max: int = 256) -> model.Swept:
        """Expires what is overdue and forgets what is old, each at most so many."""
        outcome: Applied[model.Swept] = await self.submit(commands.Sweep(expire_max, purge_max))
        return outcome.value

    async def submit_many(self, batch: Sequence[Command]) -> list[Outcome[Any]]:
        """Outcomes of many commands, in order; those that fit one batch (`batch_size_max`, `batch_weight_max`) are
        decided at one instant.

        Raises Overloaded where they find no room among the waiting; where others took it meanwhile, earlier parts may
        have taken effect.
        """
        if self.waiting + len(batch) > self._options.waiting_max:
            raise Overloaded
        futures = []
        for piece in self._batcher.pieces(batch):
            futures.append(self._batcher.submit_many(piece))
            await asyncio.sleep(0)  # to send this part while the next is encoded
        return [outcome for future in futures for outcome in await future]

    async def sellable(self, skus: Sequence[str], elsewhere: dict[str, str] | None = None) -> dict[str, dict[str, int]]:
        """{sku: {pool: sellable}} for product pages: one plain read that counts overdue holds as held until they are
        swept. SKUs that are not known are left out; those that have left the partition too, and `elsewhere` gets where
        they went. Raises Recovering where the store has lost what it had."""
        if not skus:
            return {}
        epoch, policies = await self._link.read(self._stock_key, skus)
        rules = {sku: unpack(raw) for sku, raw in zip(skus, policies, strict=True) if raw is not None}
        gone = {sku: stored[10] for sku, stored in rules.items() if len(stored) > 10 and stored[10]}
        if elsewhere is not None:
            elsewhere |= gone
        pools = {sku: stored[8] for sku, stored in rules.items() if sku not in gone}
        names = [(sku, pool) for sku, names in pools.items() for pool in names]
        if not names:
            return {}
        epoch_then, counters = await self._link.read(self._stock_key, [f"{sku}\0{pool}" for sku, pool in names])
        if epoch_then != epoch:
            raise Recovering
        found: dict[str, dict[str, int]] = {}
        for (sku, pool), raw in zip(names, counters, strict=True):
            available, safety_stock, oversell_allowance = (unpack(raw)[at] for at in (1, 6, 7))
            found.setdefault(sku, {})[pool] = available - safety_stock + oversell_allowance
        return found

    async def place(self) -> Place:
        """Where the partition stands; raises Recovering where the store holds no state of it."""
        return await self._link.place()

    async def snapshot(self) -> Snapshot:
        """Every counter at one instant, for the audit."""
        epoch, seq, chain, clock, records, deadlines, *stock = await self._link.inspect()
        pools, skus, garbage = [], [], []
        for field, raw in zip(stock[::2], stock[1::2], strict=True):
            name, is_pool, pool = field.decode(errors="backslashreplace").partition("\0")
            try:
                if is_pool:
                    pools.append(_whole(PoolCounters, (name, pool), raw))
                else:
                    skus.append(_whole(SkuRules, (name,), raw))
            except (ValueError, TypeError):
                garbage.append(f"{name}, pool {pool}" if is_pool else name)
        place = Place(self._options.partition, int(epoch), int(seq), chain.decode(), int(clock))
        return Snapshot(place, int(records), int(deadlines), sorted(pools), sorted(skus), sorted(garbage))


Row = TypeVar("Row", PoolCounters, SkuRules)


def _whole(kind: type[Row], names: tuple[str, ...], raw: bytes) -> Row:
    """The row that a field of the stock holds. Raises ValueError or TypeError for what no script wrote."""
    members: list[Any] = [*names, *unpack(raw)]
    row = kind(*members)
    for value, expected in zip(row, kind.__annotations__.values(), strict=True):
        if expected in (int, str) and type(value) is not expected:
            raise TypeError
    return row
