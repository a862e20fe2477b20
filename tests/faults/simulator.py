"""Correct histories out of thin air: a plain engine that decides one call after the other, and clients whose calls
overlap, whose answers get lost and who repeat themselves. Fast, because the checker's speed is measured on it; the
histories that prove the checker's rules right come from the real engine (`test_recorded.py`)."""

import heapq
import random
from collections.abc import Callable
from typing import Any

from flashhold.domain.entries import Entry, PoolChange
from tests.faults.checks_answers import instant
from tests.faults.checks_keys import meaning
from tests.faults.simulated import Refusal, SimPool, add_up, asked_lines, entry_shown

SKUS = {"p00": ("apple", "pear", "plum"), "p01": ("bolt", "nut")}
LIMITED = "plum"
LIMIT = 6
MAX_TTL_MS = 100_000
T0_MS = 1_700_000_000_000

Answer = tuple[int, bool | None, dict[str, Any]]


class Shop:
    """One partition that decides calls."""

    def __init__(self, partition: str, roll: random.Random) -> None:
        self.partition = partition
        self.roll = roll
        self.epoch, self.seq, self.now = 1, 0, T0_MS
        self.chain = ""
        self.entries: list[Entry] = []
        self.pools: dict[tuple[str, str], SimPool] = {}
        self.holds: dict[str, dict[str, Any]] = {}
        self.shares: dict[tuple[str | None, str], int] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.remembered: dict[str, tuple[str, int, dict[str, Any]]] = {}

    def pool(self, sku: str, pool: str | None = None) -> SimPool:
        return self.pools.setdefault((sku, pool or "default"), SimPool())

    def next_batch(self) -> None:
        self.now += self.roll.choice((0, 1, 3, 20, 400))
        self.chain = f"{self.roll.getrandbits(160):040x}"
        if self.roll.random() < 0.002 and self.seq:
            self.epoch += 1

    def write(self, kind: str, moves: list[tuple[Any, ...]], hold: dict[str, Any] | None = None, **facts: Any) -> Entry:
        """`moves`: (sku, pool, six signed quantities)."""
        changes = tuple(PoolChange(*move) for move in moves)
        for change in changes:
            pool = self.pool(change.sku, change.pool)
            for at in range(6):
                pool.units[at] += change[2:][at]
        missing = sum(max(0, -self.pool(*place).sellable) for place in {(c.sku, c.pool) for c in changes})
        self.seq += 1
        about = hold["id"] if hold else None
        entry = Entry(
            self.partition, self.epoch, self.seq, self.now, kind, facts.get("about", about), facts.get("key"), None,
            facts.get("buyer", hold["buyer"] if hold else None), hold["expires"] if hold else None,
            facts.get("reference"), facts.get("reason"), missing or None, changes, facts.get("details"), self.chain,
        )  # fmt: skip
        self.entries.append(entry)
        if hold is not None:
            hold["place"] = (self.epoch, self.seq)
        return entry

    # ---- calls

    def decide(self, verb: str, key: str | None, request: dict[str, Any]) -> Answer:
        """Status, replayed, body; the key's memory first."""
        what = meaning(verb, request)
        if key is not None and key in self.remembered:
            known, status, body = self.remembered[key]
            return (status, True, body) if known == what else (422, False, {"code": "idempotency-key-reused"})
        decide: Callable[[str | None, dict[str, Any]], Answer] = getattr(self, f"_{verb}")
        try:
            status, replayed, body = decide(key, request)
        except Refusal as refusal:
            status, replayed = refusal.status, None if verb.startswith("read") else False
            body = {**refusal.body, "partition": self.partition, "epoch": self.epoch, "seq": self.seq}
        if key is not None:
            self.remembered[key] = (what, status, body)
        return status, replayed, body

    def _hold(self, key: str | None, request: dict[str, Any]) -> Answer:
        for line in request["lines"]:
            self.must_be_known(line["sku"])
            self.must_be_on_sale(line["sku"])
        partial, lines = request.get("allow_partial"), []
        left: dict[tuple[str, str], int] = {}
        for line in request["lines"]:
            place = (line["sku"], line.get("pool") or "default")
            if partial:
                self.take_back(place)
                left.setdefault(place, max(0, self.pool(*place).sellable))
                got = min(line["quantity"], left[place])
                left[place] -= got
                lines.append([*place, got, 0, 0, line["quantity"]])
            else:
                lines.append([*place, line["quantity"], 0, 0, None])
        needs = add_up(lines)
        buyer = request.get("buyer")
        if partial and not needs:
            needs = add_up(asked_lines(request["lines"]))
            self.must_fit(needs)
        self.within_limit(buyer, needs)
        self.must_fit(needs)
        hold = {
            "id": f"hld_{self.partition}_{key}", "state": "held", "lines": lines, "buyer": buyer, "created": self.now,
            "expires": self.now + request.get("ttl_seconds", 60) * 1000, "ended": None, "reference": None,
            "reason": None, "reacquired": False, "partial": partial, "given": {},
        }  # fmt: skip
        details = {"lines": [[*line[:3], line[5]] for line in lines]} if partial else None
        moves = [(sku, pool, 0, -q, q, 0, 0, 0) for sku, pool, q, *_ in lines if q]
        self.holds[hold["id"]] = hold
        self.write("hold", moves, hold, key=key, details=details)
        self.share(hold, needs, 1)
        self.schedule(hold)
        return 201, False, self.shown(hold)

    def _commit(self, key: str | None, request: dict[str, Any]) -> Answer:
        hold = self.find(request)
        units = add_up(hold["lines"])
        lines = request.get("lines")
        wanted = units if lines is None else add_up(asked_lines(lines))
        if hold["state"] == "committed":
            sold = add_up([[line[0], line[1], line[3]] for line in hold["lines"]])
            if hold["reference"] == request.get("reference") and sold == wanted:
                return 200, True, self.shown(hold)
            raise Refusal(409, "already-committed")
        again = hold["state"] == "expired" and request.get("if_expired") == "reacquire"
        if not again:
            self.must_be_held(hold)
        if any(q > units.get(place, 0) for place, q in wanted.items()):
            return 422, False, {"code": "invalid-request"}
        if again:
            self.within_limit(hold["buyer"], wanted)
            self.must_fit(wanted)
            self.share(hold, wanted, 1)
            moves = [m for p, q in wanted.items() for m in ((*p, 0, -q, q, 0, 0, 0), (*p, 0, 0, -q, q, 0, 0))]
        else:
            moves = [(*p, 0, q - wanted.get(p, 0), -q, wanted.get(p, 0), 0, 0) for p, q in units.items()]
            self.share(hold, {p: wanted.get(p, 0) - q for p, q in units.items()}, 1)
        left = dict(wanted)
        for line in hold["lines"]:
            line[3] = min(line[2], left.get((line[0], line[1]), 0))
            line[4] = line[2] - line[3]
            left[line[0], line[1]] = left.get((line[0], line[1]), 0) - line[3]
        hold.update(state="committed", ended=self.now, reference=request.get("reference"), reacquired=again)
        details = {"reacquired": True} if again else None
        self.write("commit", moves, hold, key=key, reference=hold["reference"], details=details)
        return 200, False, self.shown(hold)

    def _release(self, key: str | None, request: dict[str, Any]) -> Answer:
        hold = self.find(request)
        if hold["state"] == "released":
            return 200, True, self.shown(hold)
        self.must_be_held(hold)
        hold.update(state="released", ended=self.now, reason=request.get("reason"))
        for line in hold["lines"]:
            line[4] = line[2]
        self.give_back("release", hold, key=key, reason=hold["reason"])
        return 200, False, self.shown(hold)

    def _extend(self, key: str | None, request: dict[str, Any]) -> Answer:
        hold = self.find(request)
        self.must_be_held(hold)
        until = max(hold["expires"], min(self.now + request["ttl_seconds"] * 1000, hold["created"] + MAX_TTL_MS))
        if until != hold["expires"]:
            hold["expires"] = until
            self.write("extend", [(*p, 0, 0, 0, 0, 0, 0) for p in add_up(hold["lines"])], hold, key=key)
            self.schedule(hold)
        return 200, False, self.shown(hold)

    def _amend(self, key: str | None, request: dict[str, Any]) -> Answer:
        hold = self.find(request)
        self.must_be_held(hold)
        lines = [[*line, 0, 0, None] for line in asked_lines(request["lines"])]
        wanted, own = add_up(lines), add_up(hold["lines"])
        more = {p: wanted.get(p, 0) - own.get(p, 0) for p in {**wanted, **own}}
        self.within_limit(hold["buyer"], more)
        self.must_fit(more, own)
        if any(more.values()):
            hold["lines"] = lines
            moves = [(*p, 0, -q, q, 0, 0, 0) for p, q in more.items() if q]
            self.write("amend", moves, hold, key=key, details={"lines": [line[:3] for line in lines]})
            self.share(hold, more, 1)
            self.schedule(hold)
            hold["partial"] = False
        return 200, False, self.shown(hold)

    def _move(self, key: str | None, request: dict[str, Any]) -> Answer:
        kind, sku, q, at = request["type"], request["sku"], request["quantity"], request.get("pool") or "default"
        if kind != "receipt":
            self.must_be_known(sku)
        pool, buyer = self.pool(sku, at), None
        if request.get("hold"):
            sold = self.find(request)
            given = sold["given"].get((sku, at), 0)
            had = sum(line[3] for line in sold["lines"] if (line[0], line[1]) == (sku, at))
            if sold["state"] != "committed" or had - given < q:
                raise Refusal(409, "movement-refused")
            sold["given"][sku, at] = given + q
            buyer = sold["buyer"]
        if kind in ("damage", "transfer", "adjustment"):
            self.take_back((sku, at))
        bound = {
            "shipment": pool.units[3], "cancel": pool.units[3], "transfer": max(0, pool.units[1]),
            "damage": sum(pool.units[1:4]), "adjustment": sum(pool.units[1:4]) if q < 0 else abs(q),
        }  # fmt: skip
        if abs(q) > bound.get(kind, abs(q)):
            if request.get("hold"):
                self.find(request)["given"][sku, at] -= q
            raise Refusal(409, "movement-refused")
        moves: dict[str, tuple[int, ...]] = {
            "receipt": (-q, q, 0, 0, 0, 0), "return": (-q, q, 0, 0, 0, 0), "adjustment": (-q, q, 0, 0, 0, 0),
            "shipment": (q, 0, 0, -q, 0, 0), "cancel": (0, q, 0, -q, 0, 0), "damage": (0, -q, 0, 0, q, 0),
            "transfer": (0, -q, 0, 0, 0, 0),
        }  # fmt: skip
        steps = [(sku, at, *moves[kind])]
        if kind == "transfer":
            steps.append((sku, request["to_pool"], 0, q, 0, 0, 0, 0))
        facts = {name: request.get(name) for name in ("reason", "reference")}
        if buyer is not None:
            self.shares[buyer, sku] = self.shares.get((buyer, sku), 0) - q
        entry = self.write(kind, steps, None, key=key, about=request.get("hold"), buyer=buyer, **facts)
        return 201, False, entry_shown(entry)

    def _read_hold(self, _: str | None, request: dict[str, Any]) -> Answer:
        return 200, None, self.shown(self.find(request))

    def _read_stock(self, _: str | None, request: dict[str, Any]) -> Answer:
        place = (request["sku"], request.get("pool") or "default")
        self.must_be_known(place[0])
        self.take_back(place)
        pool = self.pool(*place)
        available, held, committed, damaged, in_transit = pool.units[1:]
        return 200, None, {
            "sku": place[0], "pool": place[1], "on_hand": available + held + committed, "held": held,
            "committed": committed, "damaged": damaged, "in_transit": in_transit, "safety_stock": pool.safety,
            "oversell_allowance": pool.allowance, "sellable": pool.sellable, "partition": self.partition,
            "epoch": self.epoch, "seq": self.seq,
        }  # fmt: skip

    # ---- what they share

    def set_policy(self, sku: str, safety: int, allowance: int) -> None:
        """A policy entry of the fixture."""
        pool = self.pool(sku)
        pool.safety, pool.allowance = safety, allowance
        details: dict[str, Any] = {"pools": {"default": [safety, allowance]}, "counted": 0}
        if sku == LIMITED:
            details |= {"max_per_buyer": LIMIT, "counted": -1}
        elif self.roll.random() < 0.2:
            details |= self.roll.choice(({"opens_at_ms": T0_MS + 1_000}, {"closes_at_ms": T0_MS + 3_000}))
        self.policies[sku] = details
        self.write("policy", [(sku, "default", 0, 0, 0, 0, 0, 0)], None, details=details)

    def must_be_known(self, sku: str) -> None:
        if sku not in self.policies:
            raise Refusal(404, "unknown-sku", sku=sku)

    def must_be_on_sale(self, sku: str) -> None:
        policy = self.policies[sku]
        if self.now < policy.get("opens_at_ms", 0):
            raise Refusal(409, "sale-not-open", sku=sku)
        if self.now >= policy.get("closes_at_ms", self.now + 1):
            raise Refusal(409, "sale-closed", sku=sku)

    def find(self, request: dict[str, Any]) -> dict[str, Any]:
        hold = self.holds.get(request["hold"])
        if hold is None:
            raise Refusal(404, "unknown-hold")
        if hold["state"] == "held" and hold["expires"] <= self.now:
            self.expire(hold)
        return hold

    def expire(self, hold: dict[str, Any]) -> None:
        hold.update(state="expired", ended=self.now)
        self.give_back("expire", hold)

    def give_back(self, kind: str, hold: dict[str, Any], **facts: Any) -> None:
        units = add_up(hold["lines"])
        self.write(kind, [(*p, 0, q, -q, 0, 0, 0) for p, q in units.items()], hold, **facts)
        self.share(hold, units, -1)

    def share(self, hold: dict[str, Any], units: dict[tuple[str, str], int], sign: int) -> None:
        if hold["buyer"]:
            for (sku, _), q in units.items():
                self.shares[hold["buyer"], sku] = self.shares.get((hold["buyer"], sku), 0) + sign * q

    def schedule(self, hold: dict[str, Any]) -> None:
        for place in add_up(hold["lines"]):
            heapq.heappush(self.pool(*place).due, (hold["expires"], hold["id"]))

    def take_back(self, place: tuple[str, str]) -> None:
        """Expire what is overdue in the pool."""
        due = self.pool(*place).due
        while due and due[0][0] <= self.now:
            hold = self.holds[heapq.heappop(due)[1]]
            if hold["state"] == "held" and hold["expires"] <= self.now:
                self.expire(hold)

    def must_be_held(self, hold: dict[str, Any]) -> None:
        if hold["state"] != "held":
            code = {"committed": "already-committed"}.get(hold["state"], f"hold-{hold['state']}")
            raise Refusal(409, code)

    def must_fit(self, needs: dict[tuple[str, str], int], own: dict[tuple[str, str], int] | None = None) -> None:
        for place, q in needs.items():
            if q > 0 and self.pool(*place).sellable < q:
                self.take_back(place)
        mine = own or {}
        short = [
            {
                "sku": p[0],
                "pool": p[1],
                "requested": q + mine.get(p, 0),
                "sellable": self.pool(*p).sellable + mine.get(p, 0),
            }
            for p, q in needs.items()
            if q > 0 and self.pool(*p).sellable < q
        ]
        if short:
            raise Refusal(409, "insufficient-stock", lines=short)

    def within_limit(self, buyer: str | None, needs: dict[tuple[str, str], int]) -> None:
        more = sum(q for (sku, _), q in needs.items() if sku == LIMITED)
        if buyer and more > 0 and self.shares.get((buyer, LIMITED), 0) + more > LIMIT:
            self.take_back((LIMITED, "default"))
            already = self.shares.get((buyer, LIMITED), 0)
            if already + more > LIMIT:
                raise Refusal(409, "purchase-limit-exceeded", sku=LIMITED, limit=LIMIT, already=already)

    def shown(self, hold: dict[str, Any]) -> dict[str, Any]:
        lines = []
        for sku, pool, q, committed, released, asked in hold["lines"]:
            line = {"sku": sku, "pool": pool, "quantity": q, "committed": committed, "released": released}
            lines.append({**line, "requested": asked} if hold["partial"] else line)
        return {
            "id": hold["id"], "state": hold["state"], "lines": lines, "buyer": hold["buyer"],
            "created_at": instant(hold["created"]), "expires_at": instant(hold["expires"]),
            "ended_at": instant(hold["ended"]), "reference": hold["reference"], "reason": hold["reason"],
            "reacquired": hold["reacquired"], "metadata": {}, "partition": self.partition,
            "epoch": hold["place"][0], "seq": hold["place"][1],
        }  # fmt: skip
