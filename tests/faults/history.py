"""What clients saw of one run: every call written down before it is sent and after its reply, a JSON object a line.

A line is handed to the operating system before the call goes out, so a killed client has left all that it had asked
for. One process shares one `HistoryWriter`; several processes write several files of one directory, which are merged
when they are read. The clock is `time.monotonic_ns`: one machine, so the files' times can be compared.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

Verb = Literal["hold", "commit", "release", "extend", "amend", "move", "read_hold", "read_stock"]
CHANGES = frozenset({"hold", "commit", "release", "extend", "amend", "move"})


class Invoked(msgspec.Struct, frozen=True, tag="invoked", gc=False):
    """A call about to be sent. `request`: the HTTP body; with `hold` (the id) for a verb on a hold and for `read_hold`,
    with `sku` (and `pool`) for `read_stock`."""

    id: int
    at_ns: int
    worker: str
    verb: str
    key: str | None
    request: dict[str, Any]


class Answered(msgspec.Struct, frozen=True, tag="answered", gc=False):
    """A reply that was decided. `replayed`: the header Idempotency-Replayed, None where there was none."""

    id: int
    at_ns: int
    status: int
    replayed: bool | None
    body: dict[str, Any]


class Lost(msgspec.Struct, frozen=True, tag="lost", gc=False):
    """No reply that decides: a time-out, a reset, a 5xx. The fate of the call is unknown."""

    id: int
    at_ns: int
    why: str


class Fault(msgspec.Struct, frozen=True, tag="fault", gc=False):
    """Something was broken on purpose (`phase` begin) and works again (`phase` end)."""

    at_ns: int
    what: str
    phase: str


class Declared(msgspec.Struct, frozen=True, tag="declared", gc=False):
    """The ledger may have entries of this kind (with `key`: one with that key) that no recorded call asked for."""

    at_ns: int
    kind: str
    key: str | None
    why: str


Record = Invoked | Answered | Lost | Fault | Declared
End = Answered | Lost | None
R = TypeVar("R", Invoked, Answered, Lost, Fault, Declared)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Operation(NamedTuple):
    """A call and how it ended; None: its client died first, so its fate is as unknown as a lost one's."""

    invoked: Invoked
    ended: End


class History(NamedTuple):
    """Operations in the order in which they were sent."""

    operations: list[Operation]
    faults: list[Fault]
    declared: list[Declared]


class HistoryWriter:
    """Appends to one file; ids count from 1 in each file. Not for several threads."""

    def __init__(self, path: Path | str) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  # closed by close()
        self._ids = 0

    def invoked(self, verb: str, request: dict[str, Any], *, key: str | None = None, worker: str = "") -> int:
        """Write before sending; the id goes with the end of the same call."""
        self._ids += 1
        self._write(Invoked(self._ids, time.monotonic_ns(), worker, verb, key, request))
        return self._ids

    def answered(self, id: int, status: int, replayed: bool | None, body: dict[str, Any]) -> Answered:
        """The reply has come."""
        return self._write(Answered(id, time.monotonic_ns(), status, replayed, body))

    def lost(self, id: int, why: str) -> Lost:
        """No reply will come that decides."""
        return self._write(Lost(id, time.monotonic_ns(), why))

    def declared(self, kind: str, *, key: str | None = None, why: str = "") -> None:
        """Say that entries of this kind come from elsewhere: a policy of the fixture, a restore."""
        self._write(Declared(time.monotonic_ns(), kind, key, why))

    @contextmanager
    def fault(self, what: str) -> Iterator[None]:
        """Everything from before the injection until the system serves again."""
        self._write(Fault(time.monotonic_ns(), what, "begin"))
        try:
            yield
        finally:
            self._write(Fault(time.monotonic_ns(), what, "end"))

    def close(self) -> None:
        self._file.close()

    def _write(self, record: R) -> R:
        line = _encode(record) + b"\n"
        if self._file.write(line) != len(line):
            raise OSError("a line of the history was written in part: the disk is full")
        return record


def read_history(path: Path | str) -> History:
    """A history from one file, or from all `*.jsonl` of a directory. Of a file only the last line may be cut off."""
    path = Path(path)
    return merge([_records(file) for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])])


def merge(files: Iterable[Iterable[Record]]) -> History:
    """One history of several files' records, with new ids: each file counts its own. Raises ValueError where an end has
    no beginning, or comes twice."""
    calls: list[tuple[Invoked, End]] = []
    faults: list[Fault] = []
    declared: list[Declared] = []
    for records in files:
        begun: dict[int, Invoked] = {}
        ends: dict[int, Answered | Lost] = {}
        for record in records:
            if isinstance(record, Invoked):
                begun[record.id] = record
            elif isinstance(record, Fault):
                faults.append(record)
            elif isinstance(record, Declared):
                declared.append(record)
            elif record.id not in begun or record.id in ends:
                raise ValueError(f"call {record.id} ends without having begun, or twice")
            else:
                ends[record.id] = record
        calls += [(invoked, ends.get(id)) for id, invoked in begun.items()]
    calls.sort(key=lambda call: call[0].at_ns)
    operations = []
    for number, (invoked, ended) in enumerate(calls, 1):
        again = None if ended is None else msgspec.structs.replace(ended, id=number)
        operations.append(Operation(msgspec.structs.replace(invoked, id=number), again))
    faults.sort(key=lambda fault: fault.at_ns)
    return History(operations, faults, declared)


def _records(path: Path) -> Iterator[Record]:
    lines = path.read_bytes().split(b"\n")
    for line in lines[:-1]:  # behind the last end of line is nothing, or what its writer's death has cut off
        yield _decode(line)
