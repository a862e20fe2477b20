"""The engine and the reference carry out the same commands, and must agree on every answer and every entry.

The reference's clock is the engine's: each batch opens and closes with a strong read of a SKU that nobody holds,
which tells the one instant at which the batch was decided. So nothing here depends on how fast the machine is, and
deadlines can be tried to the millisecond.
"""

import math
from collections.abc import Sequence
from typing import Any

import redis

from flashhold import Engine
from flashhold.domain import entries, outcomes
from flashhold.domain.commands import Move, ReadHold, ReadStock
from flashhold.domain.model import Hold, Policy, PoolPolicy, Stock, Swept
from flashhold.domain.outcomes import Applied, Refused
from flashhold.engine.journal import Journal, decode_batch
from flashhold.engine.keys import partition_keys
from tests.engine.proof import next_head
from tests.model.books import BUCKETS, BookEntry
from tests.model.reference import Reference

CLOCK = "the clock"
"""A SKU that every duel knows and that no command touches."""


class Disagreement(AssertionError):
    """The engine answered or wrote otherwise than the reference."""


class Duel:
    """One engine, one reference, and the journal read so far."""

    def __init__(self, engine: Engine, url: str, *, partition: str = "p00") -> None:
        self.engine = engine
        self.store = redis.Redis.from_url(url)
        self.keys = partition_keys(partition)
        self.journal = Journal(self.store, partition)
        self.reference = Reference(partition=partition)
        self.read_up_to = "0-0"
        self.chain = "0" * 40
        self.unread: list[entries.Entry] = []
        self.holds: list[str] = []
        """Ids of the holds made so far, in order."""

    async def start(self) -> "Duel":
        """Make the SKU that tells the time."""
        received = await self.engine.move("receipt", CLOCK, 1, key="the clock's receipt")
        self.reference.now_ms = received.value.at_ms
        self.reference.do(Move("the clock's receipt", "receipt", CLOCK, 1))
        self._take_in_journal()
        self.unread.clear()
        return self

    def close(self) -> None:
        """Let go of the connection to the store."""
        self.store.close()

    async def run(self, *commands: Any) -> list[Any]:
        """Carry the commands out as one batch on both sides; the engine's answers, if they are right."""
        answers = await self.engine.submit_many([ReadStock(CLOCK), *commands, ReadStock(CLOCK)])
        opened, closed = answers[0].value.as_of_ms, answers[-1].value.as_of_ms
        if opened != closed:
            raise Disagreement(f"one batch, two instants: {opened} and {closed}")
        if opened < self.reference.now_ms:
            raise Disagreement(f"time went back from {self.reference.now_ms} to {opened}")
        self.reference.now_ms = opened
        self._take_in_journal()
        for command, answer in zip(commands, answers[1:-1], strict=True):
            self._judge(command, answer)
        self._expire_as_written()
        if self.unread:
            raise Disagreement(f"entries without a cause: {self.unread}")
        return answers[1:-1]

    async def one(self, command: Any) -> Any:
        """Carry one command out on both sides."""
        return (await self.run(command))[0]

    async def pass_time(self, ms: int) -> None:
        """Let the store's clock be `ms` later: its own high-water mark, as after a failover to a faster clock."""
        now_ms = (await self.engine.read_stock(CLOCK)).value.as_of_ms
        self.store.hset(self.keys.meta, "clock", now_ms + ms)

    async def sweep(self, expire_max: int = 256) -> Swept:
        """Sweep once; nothing may be forgotten meanwhile that the reference still knows."""
        swept = await self.engine.sweep(expire_max=expire_max)
        self._take_in_journal()
        if swept.expired != len(self.unread):
            raise Disagreement(f"{swept.expired} swept, but {len(self.unread)} entries: {self.unread}")
        if self.unread:
            self.reference.now_ms = self.unread[0].at_ms
        self._expire_as_written()
        if self.unread:
            raise Disagreement(f"a sweep may only expire: {self.unread}")
        late = [claim.id for claim in self.reference.overdue()]
        if late and not swept.more:
            raise Disagreement(f"the sweep says that nothing is left, but {late} are overdue")
        return swept

    async def compare_everything(self) -> None:
        """Every hold and every pool of every SKU reads alike on both sides."""
        skus = {posting.sku for entry in self.reference.books.entries for posting in entry.postings}
        reads: list[Any] = [ReadHold(hold) for hold in self.holds]
        reads += [ReadStock(sku, pool) for sku in sorted(skus) for pool in sorted(self.reference.books.pools(sku))]
        for at in range(0, len(reads), 100):
            await self.run(*reads[at : at + 100])

    # ---- one command

    def _judge(self, command: Any, answer: Any) -> None:
        if not answer.replayed:
            self._expire_as_written(up_to=answer.seq if isinstance(answer, Refused) else answer.value.seq)
        wrote = len(self.reference.books.entries)
        right = self.reference.do(command)
        if comparable(answer) != comparable(right):
            raise Disagreement(f"\ncommand   {command}\nengine    {comparable(answer)}\nreference {comparable(right)}")
        for entry in self.reference.books.entries[wrote:]:
            self._next_is(entry, command)
        if isinstance(answer, Applied) and isinstance(answer.value, Hold) and answer.value.id not in self.holds:
            self.holds.append(answer.value.id)

    def _next_is(self, entry: BookEntry, command: Any) -> None:
        if not self.unread:
            raise Disagreement(f"{command} wrote no {entry.kind} entry")
        written = self.unread.pop(0)
        if as_facts(written) != as_facts(entry):
            raise Disagreement(f"\ncommand   {command}\njournal   {as_facts(written)}\nreference {as_facts(entry)}")

    def _expire_as_written(self, up_to: float = math.inf) -> None:
        """*When* an expiry is written is the engine's affair; that it is due, and what it gives back, is not."""
        while self.unread and self.unread[0].kind == "expire" and self.unread[0].seq <= up_to:
            hold = str(self.unread[0].hold)
            claim = self.reference.books.claims().get(hold)
            if claim is None or claim.state != "held" or claim.expires_at_ms > self.reference.now_ms:
                raise Disagreement(f"expired without being overdue: {self.unread[0]}")
            self._next_is(self.reference.expire(hold), "expire")

    def _take_in_journal(self) -> None:
        while batches := self.journal.read(self.read_up_to, 100, 0):
            for batch in batches:
                chain = next_head(self.chain, batch)
                if chain != batch.chain:
                    raise Disagreement(f"the chain breaks at seq {batch.first_seq}")
                self.chain, self.read_up_to = chain, batch.stream_id
                self.unread += decode_batch(batch)


def comparable(answer: Any) -> Any:
    """An answer with what may differ left out, and what is said in two ways said in one."""
    match answer:
        case Applied(value=BookEntry() | entries.Entry() as entry, replayed=replayed):
            return "applied", as_facts(entry), replayed
        case Applied(value=Policy() as policy, replayed=replayed):
            return "applied", _policy(policy), replayed
        case Applied(value=Stock() as stock, replayed=replayed):
            return "applied", stock._replace(policy=_policy(stock.policy, in_stock=True)), replayed
        case Applied(value=Hold() as hold, replayed=replayed):
            lines = tuple(
                line._replace(requested=line.quantity if line.requested is None else line.requested)
                for line in hold.lines
            )
            return "applied", hold._replace(lines=lines), replayed
        case Refused(reason=reason, detail=detail):
            return "refused", reason.value, _detail(reason, detail), answer.replayed, answer.epoch, answer.seq
        case _:
            return answer


def _policy(policy: Policy, *, in_stock: bool = False) -> Policy:
    pools = {name: PoolPolicy(*rules) for name, rules in policy.pools.items() if tuple(rules) != (0, 0)}
    policy = policy._replace(pools=pools, counted=0)
    return policy._replace(created=False, seq=0) if in_stock else policy


def _detail(reason: outcomes.Reason, detail: dict[str, Any]) -> Any:
    """Messages are for people; everything else is the contract's."""
    if reason is outcomes.Reason.INVALID_REQUEST:
        return [error["field"] for error in detail["errors"]]
    return {name: value for name, value in detail.items() if name != "message"}


def as_facts(entry: BookEntry | entries.Entry) -> dict[str, Any]:
    """What an entry says, in words that both kinds of entry have."""
    ours = isinstance(entry, BookEntry)
    return {
        "seq": entry.seq,
        "at_ms": entry.at_ms,
        "kind": entry.kind,
        "hold": entry.hold,
        "key": entry.key if ours else entry.idempotency_key,
        "buyer": entry.buyer,
        "expires_at_ms": entry.expires_at_ms if entry.kind in ("hold", "extend") else None,
        "reference": entry.reference,
        "reason": entry.reason,
        "shortfall": entry.shortfall,
        "net": entry.net() if ours else _net(entry.changes),
        "details": _own_details(entry) if ours else _journal_details(entry),
    }


def _own_details(entry: BookEntry) -> Any:
    """What only some kinds of entry have, as the reference keeps it."""
    facts = entry.facts
    match entry.kind:
        case "hold":
            partial = any(requested is not None for *_, requested in facts["lines"])
            return facts["metadata"], [tuple(line) for line in facts["lines"]] if partial else None
        case "amend":
            return [line[:3] for line in facts["lines"]]
        case "commit":
            return facts["reacquired"]
        case "policy":
            fields = {name: value for name, value in facts["fields"].items() if name != "pools"}
            return fields, facts["fields"]["pools"]
        case _:
            return None


def _journal_details(entry: entries.Entry) -> Any:
    """The same out of the journal."""
    details = entry.details or {}
    match entry.kind:
        case "hold":
            lines = [tuple(line) for line in details["lines"]] if "lines" in details else None
            return details.get("metadata"), lines
        case "amend":
            return [tuple(line) for line in details["lines"]]
        case "commit":
            return details.get("reacquired", False)
        case "policy":
            fields = {name: value for name, value in details.items() if name not in ("pools", "counted")}
            return fields, {pool: tuple(rules) for pool, rules in details["pools"].items() if any(rules)}
        case _:
            return None


def _net(changes: Sequence[entries.PoolChange]) -> dict[tuple[str, str, str], int]:
    sums: dict[tuple[str, str, str], int] = {}
    for change in changes:
        for bucket, quantity in zip(BUCKETS, change[2:], strict=True):
            place = (change.sku, change.pool, bucket)
            sums[place] = sums.get(place, 0) + quantity
    return {place: quantity for place, quantity in sums.items() if quantity}
