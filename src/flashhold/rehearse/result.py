"""What a rehearsal found out, and its JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any

from flashhold.rehearse.client import Tally
from flashhold.rehearse.expected import Expected
from flashhold.rehearse.plan import Plan
from flashhold.rehearse.player import Played
from flashhold.rehearse.settle import Settled

UNITS = (
    "received", "held", "committed", "shipped", "released", "returned", "damaged", "adjusted_up", "adjusted_down",
)  # fmt: skip
_LISTED_MAX = 100


@dataclass
class Seconds:
    """How long each stage took, in seconds."""

    plan: float
    baseline: float
    receive: float
    play: float
    ledger: float
    """From the last answer until the ledger was read to its end and everything compared."""

    @property
    def run(self) -> float:
        """From the first request to the verdict."""
        return self.baseline + self.receive + self.play + self.ledger


@dataclass
class Result:
    """One rehearsal, finished."""

    file: str
    url: str
    run: str
    pool: str
    connections: int
    speed_up: float | None
    began_at: datetime
    plan: Plan
    expected: Expected
    played: Played
    settled: Settled
    tally: Tally
    seconds: Seconds

    @property
    def clean(self) -> bool:
        return self.settled.count == 0 and self.settled.oversold_units == 0

    @property
    def orders(self) -> int:
        return sum(1 for _ in self.plan.carts)

    @property
    def holds(self) -> int:
        return sum(len(cart.holds) for cart in self.plan.carts)

    @property
    def requests_per_s(self) -> float:
        """Decided mutations a second while the plan was played."""
        return (sum(self.played.acknowledged.values()) + self.refused) / max(
            self.seconds.receive + self.seconds.play, 1e-9
        )

    @property
    def refused(self) -> int:
        return len(self.played.refused_holds)

    def latency_ms(self, verb: str) -> dict[str, float]:
        """Count, median, p95, p99 and maximum of a verb's answers, in ms, repeats included in the time of each."""
        return latency_ms(self.tally.latencies_s.get(verb, ()))

    def as_json(self) -> dict[str, Any]:
        """One flat object; lists are cut at a hundred items, counts are not."""
        units = self.played.units
        return {
            "file": self.file,
            "run": self.run,
            "pool": self.pool,
            "rows": self.plan.rows,
            "rows_by_class": {str(name): count for name, count in self.plan.rows_by_class.items()},
            "skus": len(self.plan.skus),
            "orders": self.orders,
            "holds": self.holds,
            "ordered": self.plan.ordered,
            "stock_ratio": self.plan.stock_ratio,
            **{f"units_{what}": units[what] for what in UNITS},
            "refused": self.refused,
            "refused_expected": len(self.expected.refused_holds),
            "movements_refused": len(self.played.refused_movements),
            "oversold_units": self.settled.oversold_units,
            "differences": self.settled.count,
            "figures_compared": self.settled.compared,
            "differing_figures": [d._asdict() for d in self.settled.differences[:_LISTED_MAX]],
            "findings": self.settled.findings[:_LISTED_MAX],
            "entries_of_others": self.settled.others[:_LISTED_MAX],
            "entries": dict(self.played.acknowledged),
            "requests_repeated": dict(self.tally.repeats),
            "connections": self.connections,
            "seconds": round(self.seconds.run, 3),
            "seconds_by_stage": {name: round(value, 3) for name, value in vars(self.seconds).items()},
            "requests_per_second": round(self.requests_per_s, 1),
            "latencies_ms": {verb: self.latency_ms(verb) for verb in self.tally.latencies_s},
        }


def latency_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Nearest-rank percentiles in ms; empty for no samples."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    at = {name: ordered[ceil(share * len(ordered)) - 1] for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {
        "count": len(ordered),
        **{name: round(value * 1000, 3) for name, value in at.items()},
        "max": round(ordered[-1] * 1000, 3),
    }
