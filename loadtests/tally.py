"""Counts a drop from what its buyers were told, not from what a server says about itself."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Answer(NamedTuple):
    """One request of one buyer and what came back. Times are seconds since 1970."""

    buyer: int
    verb: str
    """`hold`, `commit` or `release`."""
    key: str
    """The idempotency key of the hold that this is about."""
    sent: float
    answered: float
    status: int
    """0 where no answer came."""
    code: str | None
    """The problem's code, where the answer is one."""
    hold: str | None
    quantity: int
    expires: float | None

    @classmethod
    def to_come(cls, buyer: int, verb: str, key: str, quantity: int, hold: str | None = None) -> "Answer":
        """What is known before the request is sent."""
        return cls(buyer, verb, key, 0.0, 0.0, 0, None, hold, quantity, None)


class Tally(NamedTuple):
    """What a drop came to. Counts of holds are counts of idempotency keys, however often each was sent."""

    units: int
    offered: int
    accepted: int
    refused: int
    failed: int
    """Keys that never got an answer that decides: neither a hold nor a refusal."""
    accepted_per_second: float
    """Keys accepted until the stock was first gone, over the seconds that this took."""
    p50_ms: float
    p99_ms: float
    """Of requests to hold that were decided."""
    sold_units: int
    held_units: int
    """Still held, and not overdue, when the drop ended."""
    oversold_units: int
    """The most units ever promised at one instant, less those that there were."""
    duplicate_holds: int
    """Holds beyond the first under one key."""
    requests: int
    decided_per_second: float


class _Promise(NamedTuple):
    begins: float
    ends: float
    quantity: int
    sold: bool


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """One JSON array a line."""
    with path.open("w") as file:
        for answer in answers:
            file.write(json.dumps(answer) + "\n")


def read_answers(path: Path) -> list[Answer]:
    with path.open() as file:
        return [Answer(*json.loads(line)) for line in file]


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile; NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def tally(answers: list[Answer], units: int) -> Tally:
    """Work out a drop of `units` from the answers that its buyers got."""
    asked = [answer for answer in answers if answer.verb == "hold"]
    offered = {answer.key for answer in asked}
    holds = _holds(asked)
    accepted = {hold.key for hold in holds}
    refused = {answer.key for answer in asked if answer.status == 409} - accepted
    decided = [answer for answer in asked if answer.status in (201, 409)]
    latencies = [(answer.answered - answer.sent) * 1e3 for answer in decided]
    promises = _promises(answers, holds)
    ended = max((answer.answered for answer in answers), default=0.0)
    span = max((a.answered for a in decided), default=0.0) - min((a.sent for a in decided), default=0.0)
    return Tally(
        units=units,
        offered=len(offered),
        accepted=len(accepted),
        refused=len(refused),
        failed=len(offered) - len(accepted) - len(refused),
        accepted_per_second=_rush(asked, holds, units),
        p50_ms=percentile(latencies, 0.50),
        p99_ms=percentile(latencies, 0.99),
        sold_units=sum(p.quantity for p in promises if p.sold),
        held_units=sum(p.quantity for p in promises if not p.sold and p.ends > ended),
        oversold_units=max(0, max((n for _, n in _over_time(promises)), default=0) - units),
        duplicate_holds=len(holds) - len(accepted),
        requests=len(answers),
        decided_per_second=len(decided) / span if span > 0 else 0.0,
    )


def _holds(asked: list[Answer]) -> list[Answer]:
    """The first answer about each hold, in the order in which buyers heard of them."""
    firsts: dict[tuple[str, str | None], Answer] = {}
    for answer in sorted(asked, key=lambda answer: answer.answered):
        if answer.status == 201:
            firsts.setdefault((answer.key, answer.hold), answer)
    return list(firsts.values())


def _rush(asked: list[Answer], holds: list[Answer], units: int) -> float:
    """Holds accepted a second, until as many units as there were had been given away for the first time."""
    given = accepted = 0
    ends = 0.0
    for hold in holds:
        given += hold.quantity
        accepted += 1
        ends = hold.answered
        if given >= units:
            break
    seconds = ends - min((answer.sent for answer in asked), default=0.0)
    return accepted / seconds if seconds > 0 else 0.0


def promised_over_time(answers: list[Answer]) -> list[tuple[float, int]]:
    """(instant, units promised from then on), for every instant at which that changed."""
    return _over_time(_promises(answers, _holds([answer for answer in answers if answer.verb == "hold"])))


def _promises(answers: list[Answer], holds: list[Answer]) -> list[_Promise]:
    """For how long each hold was certainly promised to its buyer: from the first answer that said so, until its
    deadline, or until its release was *sent*, or for ever once a payment was acknowledged.

    Each interval lies inside the true one, so a sum over them never accuses a server wrongly.
    """
    paid: dict[str | None, float] = {}
    released: dict[str | None, float] = {}
    for answer in answers:
        if answer.verb == "commit" and answer.status == 200:
            paid[answer.hold] = min(answer.answered, paid.get(answer.hold, answer.answered))
        elif answer.verb == "release":
            released[answer.hold] = min(answer.sent, released.get(answer.hold, answer.sent))
    promises = []
    for hold in holds:
        deadline = hold.expires or float("inf")
        if hold.hold not in paid:
            ends = min(deadline, released.get(hold.hold, deadline))
            promises.append(_Promise(hold.answered, ends, hold.quantity, sold=False))
            continue
        if paid[hold.hold] > deadline:  # sold after it had lapsed: in between it was promised to nobody
            promises.append(_Promise(hold.answered, deadline, hold.quantity, sold=False))
            promises.append(_Promise(paid[hold.hold], float("inf"), hold.quantity, sold=True))
        else:
            promises.append(_Promise(hold.answered, float("inf"), hold.quantity, sold=True))
    return promises


def _over_time(promises: Iterable[_Promise]) -> list[tuple[float, int]]:
    steps: list[tuple[float, int]] = []
    for promise in promises:
        if promise.ends > promise.begins:
            steps.append((promise.begins, promise.quantity))
            steps.append((promise.ends, -promise.quantity))
    now = 0
    curve = []
    for at, change in sorted(steps):  # at one instant, endings sort before beginnings
        if at == float("inf"):
            break
        now += change
        curve.append((at, now))
    return curve
