"""A history made ready for the rules: what became of each call, what belongs to one key, what was known when."""

from bisect import bisect_left
from itertools import zip_longest
from typing import Any

from flashhold.domain.entries import MOVEMENT_KINDS, Entry
from tests.faults.books import Place
from tests.faults.history import CHANGES, Answered, Declared, Fault, History, Operation

APPLIED, READ, REFUSED, REUSED, TURNED_AWAY, UNKNOWN = "applied", "read", "refused", "reused", "turned away", "unknown"
_REFUSALS = (404, 409)
_NEVER: Place = (-1, -1)


class Call:
    """An operation and what became of it. `place`: where its answer says that it was decided, None where it does not;
    `forgiven`: its loss, or what it saw of what was lost, is allowed at the level of the run."""

    __slots__ = (
        "answer", "answered_ns", "body", "fate", "forgiven", "id", "invoked_ns", "key", "partition", "place",
        "replayed", "request", "verb",
    )  # fmt: skip

    def __init__(self, operation: Operation) -> None:
        invoked, ended = operation
        self.id = invoked.id
        self.verb = invoked.verb
        self.key = invoked.key
        self.request = invoked.request
        self.invoked_ns = invoked.at_ns
        self.forgiven = False
        self.answer = ended if isinstance(ended, Answered) else None
        self.answered_ns = self.answer.at_ns if self.answer else 0
        self.body: dict[str, Any] = self.answer.body if self.answer else {}
        self.replayed = self.answer.replayed if self.answer else None
        self.fate = _fate(self.verb, self.answer)
        self.partition: str | None = None
        self.place: Place | None = None
        if self.fate in (APPLIED, READ, REFUSED):
            epoch, seq, partition = (self.body.get(name) for name in ("epoch", "seq", "partition"))
            if isinstance(epoch, int) and isinstance(seq, int) and isinstance(partition, str):
                self.partition, self.place = partition, (epoch, seq)

    def __str__(self) -> str:
        return f"call {self.id} ({self.verb}, key {self.key})"

    @property
    def hold(self) -> str | None:
        """The hold that the call is about, where it is known."""
        named = self.body.get("id") if self.verb == "hold" else self.request.get("hold")
        return named if isinstance(named, str) else None


def _fate(verb: str, answer: Answered | None) -> str:
    if answer is None or answer.status >= 500:
        return UNKNOWN
    if 200 <= answer.status < 300:
        return APPLIED if verb in CHANGES else READ
    code = answer.body.get("code")
    if answer.status in _REFUSALS and code != "not-found":  # that is a path's, and nobody's decision
        return REFUSED
    return REUSED if code == "idempotency-key-reused" else TURNED_AWAY


class Timeline:
    """The newest place that anybody had been told of by a moment."""

    def __init__(self, told: list[tuple[int, Place]]) -> None:
        self._times: list[int] = []
        self._places: list[Place] = []
        newest = _NEVER
        for at_ns, place in sorted(told):
            if place > newest:
                newest = place
                self._times.append(at_ns)
                self._places.append(place)

    def before(self, at_ns: int) -> Place:
        """The newest place told strictly before the moment."""
        at = bisect_left(self._times, at_ns)
        return self._places[at - 1] if at else _NEVER


class Index:
    """All calls, by key and by what they could have caused."""

    def __init__(self, history: History) -> None:
        self.calls = [Call(operation) for operation in history.operations]
        self.fault_ends = sorted(fault.at_ns for fault in history.faults if fault.phase == "end")
        self.faults: list[Fault] = history.faults
        self.at_memory = False
        """Whether a fault may have taken something along."""
        self.by_key: dict[str, list[Call]] = {}
        self._keyless: dict[tuple[str, str], list[Call]] = {}
        for call in self.calls:
            if call.key is not None:
                self.by_key.setdefault(call.key, []).append(call)
            elif call.verb in CHANGES and call.hold:
                self._keyless.setdefault((call.verb, call.hold), []).append(call)
        self._declared_kinds = {d.kind for d in history.declared if d.key is None}
        self._declared_keys = {(d.kind, d.key) for d in history.declared}
        self.declared: list[Declared] = history.declared

    def asked_by(self, entry: Entry) -> list[Call]:
        """The calls that can have caused the entry by their verb, key or hold, in the order in which they were sent."""
        verb = "move" if entry.kind in MOVEMENT_KINDS else entry.kind
        if entry.idempotency_key is None:
            return self._keyless.get((verb, entry.hold or ""), [])
        return [call for call in self.by_key.get(entry.idempotency_key, ()) if call.verb == verb]

    def is_declared(self, entry: Entry) -> bool:
        """Whether the run said that the entry comes from elsewhere; whatever is overdue may expire."""
        if entry.kind == "restore" or (
            entry.kind == "release" and entry.reason == "key-used-again" and entry.epoch > 1
        ):
            # A restore also releases the earlier of two live holds of one key.
            return bool(self.faults) or "restore" in self._declared_kinds
        declared = entry.kind in self._declared_kinds or (entry.kind, entry.idempotency_key) in self._declared_keys
        return entry.kind == "expire" or declared

    def period(self, at_ns: int) -> int:
        """How many faults were over by then."""
        return bisect_left(self.fault_ends, at_ns)

    def forgets(self, from_ns: int, until_ns: int) -> bool:
        """Whether between the two something was broken that may have taken a memory along."""
        begins = sorted(fault.at_ns for fault in self.faults if fault.phase == "begin")
        broken = zip_longest(begins, self.fault_ends, fillvalue=until_ns)
        return self.at_memory and any(begin < until_ns and end > from_ns for begin, end in broken)

    def timelines(self) -> tuple[dict[str, Timeline], dict[str, Timeline]]:
        """By partition what its answers told, and by hold what the answers about it told."""
        partitions: dict[str, list[tuple[int, Place]]] = {}
        holds: dict[str, list[tuple[int, Place]]] = {}
        for call in self.calls:
            if call.place is None or call.partition is None or call.forgiven:
                continue
            partitions.setdefault(call.partition, []).append((call.answered_ns, call.place))
            if call.fate != REFUSED and call.hold and call.verb != "move":
                holds.setdefault(call.hold, []).append((call.answered_ns, call.place))
        return (
            {name: Timeline(told) for name, told in partitions.items()},
            {name: Timeline(told) for name, told in holds.items()},
        )


def first_sent_ns(call: Call, index: Index) -> int:
    """When the call, or the first with its key, was sent: from then on its fate could be decided."""
    return call.invoked_ns if call.key is None else index.by_key[call.key][0].invoked_ns
