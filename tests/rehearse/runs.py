"""Finished runs for tests of what comes after one: built from the plan's own figures, then falsified by the test."""

from collections import Counter
from datetime import UTC, datetime

from flashhold.rehearse.client import Api, Tally
from flashhold.rehearse.expected import Expected, expect
from flashhold.rehearse.ledger import Fold
from flashhold.rehearse.plan import Plan
from flashhold.rehearse.player import Played
from flashhold.rehearse.requests import Requests
from flashhold.rehearse.result import Result, Seconds
from flashhold.rehearse.settle import Strong, compare


class Outcome:
    """What the three witnesses say of a plan, all in agreement until somebody changes one of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.expected: Expected = expect(plan)
        self.requests = Requests(Api("http://127.0.0.1:8000", "key"), "run", "default")
        self.played = Played(
            units=Counter(self.expected.units),
            refused_holds=set(self.expected.refused_holds),
            refused_movements=set(self.expected.refused_movements),
        )
        self.fold = Fold(self.requests, "default", plan.skus)
        for sku, buckets in self.expected.buckets.items():
            self.fold.buckets[sku][:] = buckets
        self.stock = {
            sku: Strong(sum(buckets[1:4]), buckets[2], buckets[3], 0, 0, "p00", 1, 1)
            for sku, buckets in self.expected.buckets.items()
        }

    def result(self) -> Result:
        """The comparison, as a rehearsal returns it."""
        settled = compare(self.plan, {}, self.expected, played=self.played, fold=self.fold, stock=self.stock)
        tally = Tally()
        for verb, count in (("hold", 400), ("commit", 300), ("shipment", 900)):
            for number in range(count):
                began = tally.started + 10 * number / count
                tally.note(verb, began, began + 0.001 * (1 + number % 50))
        return Result(
            file="shop.csv", url="http://127.0.0.1:8000", run="run", pool="default", connections=2, speed_up=None,
            began_at=datetime(2025, 11, 28, tzinfo=UTC), plan=self.plan, expected=self.expected, played=self.played,
            settled=settled, tally=tally, seconds=Seconds(1, 1, 1, 70, 4),
        )  # fmt: skip
