"""Movements, policies and the strong read of stock."""

from typing import Any

from flashhold.domain import commands
from flashhold.domain.model import Policy, PoolPolicy, Stock
from flashhold.domain.outcomes import Applied
from flashhold.domain.reasons import Reason
from tests.model.books import Posting
from tests.model.state import No, State

POLICY_FIELDS = (
    "class",
    "hold_ttl_ms",
    "hold_ttl_max_ms",
    "max_per_buyer",
    "opens_at_ms",
    "closes_at_ms",
    "partition_key",
    "durability",
)


class StockVerbs(State):
    """move, set policy, and reading stock."""

    def _move(self, command: commands.Move) -> Any:
        sku, pool, units = command.sku, command.pool, command.quantity
        if command.kind != "receipt":
            self._known(sku)
        buyer = self._giving_back(command) if command.hold and command.kind in ("cancel", "return") else None
        on_hand = sum(self.books.units(sku, pool, bucket) for bucket in ("available", "held", "committed"))
        committed = self.books.units(sku, pool, "committed")
        from_bucket, to_bucket, bound = {
            "receipt": ("outside", "available", None),
            "return": ("outside", "available", None),
            "shipment": ("committed", "outside", committed),
            "cancel": ("committed", "available", committed),
            "damage": ("available", "damaged", on_hand),
            "transfer": ("available", "available", self.unclaimed(sku, pool)),
            "adjustment": ("outside", "available", on_hand if units < 0 else None),
        }[command.kind]
        if bound is not None and abs(units) > bound:
            raise No(Reason.MOVEMENT_REFUSED)
        safety, oversell = self._pool_policy(sku, pool)
        if command.kind in ("damage", "transfer") or units < 0:
            self._freed((sku, pool), abs(units) + max(0, oversell - safety))
        entry = self._write(
            command.kind,
            [Posting(sku, pool, from_bucket, -units), Posting(sku, command.to_pool or pool, to_bucket, units)],
            key=command.key,
            hold=command.hold,
            buyer=buyer,
            reference=command.reference,
            reason=command.reason,
        )
        return Applied(entry)

    def _giving_back(self, command: commands.Move) -> str | None:
        """Whose share a cancel or a return lowers: the buyer's of the hold that sold the units."""
        claim, place = self._claim(str(command.hold)), (command.sku, command.pool)
        sold = sum(line.committed for line in claim.lines if (line.sku, line.pool) == place)
        if command.quantity > sold - self.books.given_back(str(claim.id), place):
            raise No(Reason.MOVEMENT_REFUSED)
        return claim.buyer

    def _setpolicy(self, command: commands.SetPolicy) -> Any:
        created = not self.books.knows(command.sku)
        before = self.books.policy(command.sku)
        after: dict[str, Any] = {"pools": {}} if command.replace else {**before, "pools": dict(before["pools"])}
        given = {name: value for name, value in command.fields.items() if value is not None}
        after.update((name, given[name]) for name in POLICY_FIELDS if name in given)
        for pool, rules in given.get("pools", {}).items():
            safety, oversell = after["pools"].get(pool, (0, 0))
            after["pools"][pool] = (
                _or(rules.get("safety_stock"), safety),
                _or(rules.get("oversell_allowance"), oversell),
            )
        after["pools"] = {pool: rules for pool, rules in after["pools"].items() if rules != (0, 0)}
        if after.get("partition_key") != before.get("partition_key") and self._anything_there(command.sku):
            raise No(Reason.POLICY_REFUSED)
        if created or after != before:
            about = {(command.sku, pool) for pool in self.books.pools(command.sku) | set(after["pools"]) | {"default"}}
            self._write("policy", [], key=command.key, policy_of=command.sku, fields=after, about=about)
        return Applied(self._as_policy(command.sku, created))

    def _anything_there(self, sku: str) -> bool:
        return any(
            self.books.units(sku, pool, bucket)
            for pool in self.books.pools(sku)
            for bucket in ("available", "held", "committed")
        )

    def _readstock(self, command: commands.ReadStock) -> Any:
        sku, pool = command.sku, command.pool
        self._known(sku)
        for claim in self.overdue():
            if claim.units().get((sku, pool)):
                self.expire(str(claim.id))
        return Applied(
            Stock(
                sku,
                pool,
                *(
                    self.books.units(sku, pool, bucket)
                    for bucket in ("available", "held", "committed", "damaged", "in_transit")
                ),
                *self._pool_policy(sku, pool),
                self.partition,
                self.epoch,
                self.books.seq,
                self.now_ms,
                self._as_policy(sku, created=False),
            )
        )

    def _as_policy(self, sku: str, created: bool) -> Policy:
        fields = self.books.policy(sku)
        pools = {pool: PoolPolicy(*rules) for pool, rules in fields["pools"].items()}
        return Policy(
            sku,
            *(fields.get(name) for name in POLICY_FIELDS),
            pools,
            created,
            self.partition,
            self.epoch,
            self.books.seq,
        )


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
