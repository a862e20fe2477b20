"""The verbs of a hold, as the contract tells them."""

from typing import Any

from flashhold.domain import commands
from flashhold.domain.idempotency import hold_id, key_digest
from flashhold.domain.model import Hold, HoldLine, HoldState, Line
from flashhold.domain.outcomes import Applied
from flashhold.domain.reasons import Reason
from tests.model.books import Claim, Posting
from tests.model.state import No, State, add_up, claiming, of_sku


class HoldVerbs(State):
    """hold, commit, release, extend, amend, and reading a hold."""

    def _hold(self, command: commands.Hold) -> Any:
        asked = add_up(command.lines)
        skus = list(dict.fromkeys(line.sku for line in command.lines))
        for sku in skus:
            self._known(sku)
            self._on_sale(sku)
        ttl_ms = self._ttl(skus, command.ttl_ms)
        for sku in skus:
            self._buyer_named(sku, command.buyer)
        lines = [(line.sku, line.pool, line.quantity, None) for line in command.lines]
        if command.allow_partial:
            lines = self._grant(command.lines, asked)
        granted = add_up(Line(sku, units, pool) for sku, pool, units, _ in lines)
        self._within_limits(command.buyer, granted, {})
        self._short(granted, {})
        identity = hold_id(self.partition, key_digest(command.key), self.books.seq + 1)
        self._write(
            "hold",
            claiming(granted),
            hold=identity,
            key=command.key,
            buyer=command.buyer,
            expires_at_ms=self.now_ms + ttl_ms,
            metadata=command.metadata,
            lines=lines,
        )
        return Applied(self._as_hold(identity))

    def _grant(self, lines: tuple[Line, ...], asked: dict[tuple[str, str], int]) -> list[tuple[str, str, int, int]]:
        """Each line gets what the lines before it have left of its pool; not one unit in all is a refusal."""
        left = {place: max(0, self._freed(place, units)) for place, units in asked.items()}
        granted = []
        for line in lines:
            units = min(line.quantity, left[line.sku, line.pool])
            left[line.sku, line.pool] -= units
            granted.append((line.sku, line.pool, units, line.quantity))
        if not any(units for _, _, units, _ in granted):
            self._short(asked, {})
        return granted

    def _commit(self, command: commands.Commit) -> Any:
        claim = self._claim(command.hold)
        named = add_up(command.lines) if command.lines is not None else None
        if claim.state == "committed":
            sold = add_up(Line(line.sku, line.committed, line.pool) for line in claim.lines)
            again = {**dict.fromkeys(sold, 0), **(claim.units() if named is None else named)}
            if claim.reference == command.reference and again == sold:
                return Applied(self._as_hold(claim.id), replayed=True)
            raise No(Reason.ALREADY_COMMITTED)
        reacquired = claim.state == "expired" and command.reacquire
        if not reacquired:
            self._must_be_held(claim)
        wanted = claim.units() if named is None else named
        for place, units in wanted.items():
            if units > claim.units().get(place, 0):
                raise No(Reason.INVALID_REQUEST, errors=[{"field": "lines", "message": "more than held"}])
        postings = []
        if reacquired:
            self._within_limits(claim.buyer, wanted, {})
            self._short(wanted, {})
            postings += claiming(wanted)
        for place, units in claim.units().items():
            sold, back = wanted.get(place, 0), units - wanted.get(place, 0)
            if reacquired:
                back = 0
            postings += [
                Posting(*place, "held", -sold - back),
                Posting(*place, "committed", sold),
                Posting(*place, "available", back),
            ]
        self._write(
            "commit",
            postings,
            hold=claim.id,
            key=command.key,
            buyer=claim.buyer,
            reference=command.reference,
            sold=wanted,
            reacquired=reacquired,
        )
        return Applied(self._as_hold(claim.id))

    def _release(self, command: commands.Release) -> Any:
        claim = self._claim(command.hold)
        if claim.state == "released":
            return Applied(self._as_hold(claim.id), replayed=True)
        self._must_be_held(claim)
        postings = claiming({place: -units for place, units in claim.units().items()})
        self._write("release", postings, hold=claim.id, key=command.key, buyer=claim.buyer, reason=command.reason)
        return Applied(self._as_hold(claim.id))

    def _extend(self, command: commands.Extend) -> Any:
        claim = self._claim(command.hold)
        self._must_be_held(claim)
        longest = claim.created_at_ms + self._ttl_max([line.sku for line in claim.lines])
        deadline = max(claim.expires_at_ms, min(self.now_ms + command.ttl_ms, longest))
        if deadline != claim.expires_at_ms:
            self._write(
                "extend",
                [],
                hold=claim.id,
                key=command.key,
                buyer=claim.buyer,
                expires_at_ms=deadline,
                about={place for place, units in claim.units().items() if units},
            )
        return Applied(self._as_hold(claim.id))

    def _amend(self, command: commands.Amend) -> Any:
        claim = self._claim(command.hold)
        self._must_be_held(claim)
        wanted, own = add_up(command.lines), claim.units()
        for place, units in wanted.items():
            self._known(place[0])
            if units > own.get(place, 0):
                self._on_sale(place[0])
                self._buyer_named(place[0], claim.buyer, field="lines")
        self._within_limits(claim.buyer, wanted, own)
        self._short(wanted, own)
        change = {place: wanted.get(place, 0) - own.get(place, 0) for place in {**own, **wanted}}
        if any(change.values()):
            self._write(
                "amend",
                claiming(change),
                hold=claim.id,
                key=command.key,
                buyer=claim.buyer,
                lines=[(line.sku, line.pool, line.quantity, None) for line in command.lines],
            )
        return Applied(self._as_hold(claim.id))

    def _readhold(self, command: commands.ReadHold) -> Any:
        return Applied(self._as_hold(self._claim(command.hold).id))

    # ---- what holds are bounded by

    def _must_be_held(self, claim: Claim) -> None:
        if claim.state != "held":
            raise No(
                {
                    "committed": Reason.ALREADY_COMMITTED,
                    "released": Reason.HOLD_RELEASED,
                    "expired": Reason.HOLD_EXPIRED,
                }[claim.state]
            )

    def _on_sale(self, sku: str) -> None:
        policy = self.books.policy(sku)
        opens, closes = policy.get("opens_at_ms"), policy.get("closes_at_ms")
        if opens is not None and self.now_ms < opens:
            raise No(Reason.SALE_NOT_OPEN, sku=sku, opens_at_ms=opens)
        if closes is not None and self.now_ms >= closes:
            raise No(Reason.SALE_CLOSED, sku=sku, closes_at_ms=closes)

    def _ttl_max(self, skus: list[str]) -> int:
        return min(self.books.policy(sku).get("hold_ttl_max_ms") or self.hold_ttl_max_ms for sku in skus)

    def _ttl(self, skus: list[str], asked_ms: int | None) -> int:
        longest = self._ttl_max(skus)
        if asked_ms is None:
            usual = min(self.books.policy(sku).get("hold_ttl_ms") or self.hold_ttl_ms for sku in skus)
            return min(usual, longest)
        if asked_ms > longest:
            raise No(Reason.INVALID_REQUEST, errors=[{"field": "ttl_seconds", "message": "too long"}])
        return asked_ms

    def _buyer_named(self, sku: str, buyer: str | None, field: str = "buyer") -> None:
        if buyer is None and self.books.policy(sku).get("max_per_buyer") is not None:
            raise No(Reason.INVALID_REQUEST, errors=[{"field": field, "message": "a buyer is needed"}])

    def _within_limits(
        self, buyer: str | None, wanted: dict[tuple[str, str], int], own: dict[tuple[str, str], int]
    ) -> None:
        """Refuse what takes the buyer above a limit; `own` units are counted already."""
        for sku in dict.fromkeys(sku for sku, _ in wanted):
            limit = self.books.policy(sku).get("max_per_buyer")
            more = of_sku(wanted, sku) - of_sku(own, sku)
            if limit is None or buyer is None or more <= 0:
                continue
            already = self.share(buyer, sku)
            if already + more > limit:
                raise No(Reason.PURCHASE_LIMIT_EXCEEDED, sku=sku, limit=limit, already=already)

    def _short(self, wanted: dict[tuple[str, str], int], own: dict[tuple[str, str], int]) -> None:
        """Refuse what the pools cannot give, beyond what the hold has of them already."""
        lines = []
        for place, units in wanted.items():
            more = units - own.get(place, 0)
            if more > 0 and self._freed(place, more) < more:
                sellable = self.sellable(*place) + own.get(place, 0)
                lines.append({"sku": place[0], "pool": place[1], "requested": units, "sellable": sellable})
        if lines:
            raise No(Reason.INSUFFICIENT_STOCK, lines=lines)

    def _as_hold(self, identity: str | None) -> Hold:
        claim = self.books.claims()[str(identity)]
        return Hold(
            str(claim.id),
            HoldState[claim.state.upper()],
            tuple(
                HoldLine(line.sku, line.pool, line.quantity, line.committed, line.released, line.requested)
                for line in claim.lines
            ),
            claim.buyer,
            claim.created_at_ms,
            claim.expires_at_ms,
            claim.ended_at_ms,
            claim.reference,
            claim.reason,
            claim.reacquired,
            claim.metadata,
            self.partition,
            self.epoch,
            claim.seq,
        )
