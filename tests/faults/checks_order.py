"""Real time: what was answered before something else was sent comes before it in the ledger's order."""

from tests.faults.books import Place
from tests.faults.index import APPLIED, READ, REFUSED, Call, Index, Timeline, first_sent_ns
from tests.faults.verdict import Verdict

_EMPTY = Timeline([])


class Order:
    """What was known when, by partition and by hold."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._partitions, self._holds = index.timelines()

    def check_entry(self, verdict: Verdict, partition: str, place: Place, cause: Call) -> None:
        """An entry lies behind everything that had been told before anybody asked for it."""
        told = self._partitions.get(partition, _EMPTY).before(first_sent_ns(cause, self._index))
        if place <= told:
            where = f"{partition} {place[0]}/{place[1]}"
            verdict.add(
                "real-time-inversion", where, f"{cause} was sent when {told[0]}/{told[1]} had been told already"
            )

    def check_answer(self, verdict: Verdict, call: Call) -> None:
        """A read or a refusal knows all that had been told; what is said of a hold, all that had been said of it."""
        if call.place is None or call.partition is None or call.forgiven:
            return
        since_ns = first_sent_ns(call, self._index)
        if call.fate == REFUSED or call.verb == "read_stock":
            told = self._partitions.get(call.partition, _EMPTY).before(since_ns)
        elif call.fate == READ or (call.fate == APPLIED and call.hold and call.verb not in ("hold", "move")):
            told = self._holds.get(call.hold or "", _EMPTY).before(since_ns)
        else:
            return
        if call.place < told:
            kind = "read-goes-back" if call.fate == READ else "stale-answer"
            verdict.add(kind, str(call), f"decided at {call.place}, when {told} had been told before it was sent")
