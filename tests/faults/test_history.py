"""What a client did is in the file before it happens, and an answer that did not come is never taken for one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.history import Answered, HistoryWriter, Lost, read_history
from tests.faults.recorder import RecordingClient

pytestmark = pytest.mark.quick

Behaviour = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[None]]
"""(number of the request, its bytes, where to answer)"""


@asynccontextmanager
async def server(behaviour: Behaviour) -> AsyncIterator[str]:
    """An HTTP server that does with each request what the test wants."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(h[15:]) for h in head.split(b"\r\n") if h.startswith(b"content-length:")), 0)
                body = await reader.readexactly(length)
                count += 1
                await behaviour(count, head + body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def reply(status: int, body: bytes, *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 %d X" % status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def test_a_call_is_written_before_it_is_sent(tmp_path: Path) -> None:
    """The server finds the call in the file when the request arrives, and its key with it."""
    path = tmp_path / "h.jsonl"
    seen: list[bytes] = []

    async def behaviour(_: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(path.read_bytes())
        assert b"idempotency-key: k1\r\n" in request and request.endswith(b'{"lines":[]}')
        writer.write(reply(201, b'{"id":"hld_1"}', b"Idempotency-Replayed: false"))

    async with server(behaviour) as url, RecordingClient(url, "key", HistoryWriter(path), worker="w") as client:
        ended = await client.call("hold", {"lines": []}, key="k1")
    assert b'"key":"k1"' in seen[0] and b"answered" not in seen[0]
    assert isinstance(ended, Answered) and (ended.status, ended.replayed, ended.body) == (201, False, {"id": "hld_1"})
    (operation,) = read_history(path).operations
    assert operation.ended == ended and operation.invoked.worker == "w"
    assert operation.invoked.at_ns < ended.at_ns


async def test_an_answer_that_comes_too_late_is_nobodys(tmp_path: Path) -> None:
    """A call that times out is lost, and the next one does not get its answer."""

    async def behaviour(number: int, _: bytes, writer: asyncio.StreamWriter) -> None:
        if number == 1:
            await asyncio.sleep(0.3)
        writer.write(reply(200, b'{"number":%d}' % number))

    writer = HistoryWriter(tmp_path / "h.jsonl")
    async with server(behaviour) as url, RecordingClient(url, "key", writer, timeout_s=0.1) as client:
        first = await client.call("read_stock", {"sku": "a/b"})
        await asyncio.sleep(0.3)
        second = await client.call("read_stock", {"sku": "a/b"})
    assert isinstance(first, Lost) and first.why == "no answer in time"
    assert isinstance(second, Answered) and second.body == {"number": 2}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (reply(503, b'{"code":"not-durable"}'), "503 not-durable"),
        (reply(500, b"oops"), "500 with what is not JSON"),
        (reply(200, b'{"id":1}')[:-3], "connection lost: ConnectionResetError"),
        (b"", "connection lost: ConnectionResetError"),
        (b"what?\r\n\r\n", "connection lost: ConnectionError"),
    ],
)
async def test_what_does_not_decide_is_lost(tmp_path: Path, answer: bytes, why: str) -> None:
    """A 5xx with its code, half an answer, none, or nonsense: the fate is unknown, and the file says why."""

    async def behaviour(_: int, __: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with server(behaviour) as url, RecordingClient(url, "key", HistoryWriter(tmp_path / "h.jsonl")) as client:
        ended = await client.call("release", {"hold": "hld_1"})
    assert isinstance(ended, Lost) and ended.why == why
    assert read_history(tmp_path).operations[0].ended == ended


async def test_nobody_listens(tmp_path: Path) -> None:
    """A refused connection is a lost call too: a proxy between might have sent it on."""
    async with RecordingClient("http://127.0.0.1:9", "key", HistoryWriter(tmp_path / "h.jsonl")) as client:
        ended = await client.call("release", {"hold": "hld_1"})
    assert isinstance(ended, Lost) and ended.why == "connection lost: ConnectionRefusedError"


async def test_a_cancelled_call_is_written_down_as_lost(tmp_path: Path) -> None:
    """And the cancellation goes on."""

    async def behaviour(_: int, __: bytes, ___: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    async with server(behaviour) as url, RecordingClient(url, "key", HistoryWriter(tmp_path / "h.jsonl")) as client:
        task = asyncio.create_task(client.call("hold", {"lines": []}, key="k"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (operation,) = read_history(tmp_path).operations
    assert isinstance(operation.ended, Lost) and operation.ended.why == "given up: CancelledError"


async def test_a_call_is_repeated_with_its_key_until_it_is_decided(tmp_path: Path) -> None:
    """Three tries with one key, all three in the history; a 429 decides nothing."""
    keys: list[bytes] = []

    async def behaviour(number: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        keys.append(request.partition(b"idempotency-key: ")[2][:2])
        status = {1: 503, 2: 429}.get(number, 409)
        writer.write(reply(status, b'{"code":"x"}'))

    async with server(behaviour) as url, RecordingClient(url, "key", HistoryWriter(tmp_path / "h.jsonl")) as client:
        ended = await client.retry_until_known("hold", {"lines": []}, key="k7", deadline_s=10)
        never = await client.retry_until_known("hold", {"lines": []}, key="k7", deadline_s=0)
    assert isinstance(ended, Answered) and isinstance(never, Answered) and ended.status == 409
    assert keys == [b"k7"] * 4
    kinds = [type(operation.ended) for operation in read_history(tmp_path).operations]
    assert kinds == [Lost, Answered, Answered, Answered]


def test_files_are_merged_by_time(tmp_path: Path) -> None:
    """Two processes' files with the same ids become one history; a line cut off by a death is left out."""
    one, two = HistoryWriter(tmp_path / "a.jsonl"), HistoryWriter(tmp_path / "b.jsonl")
    with one.fault("kill redis"):
        a = one.invoked("hold", {"lines": []}, key="a", worker="one")
        b = two.invoked("hold", {"lines": []}, key="b", worker="two")
        c = one.invoked("hold", {"lines": []}, key="c", worker="one")
    two.answered(b, 201, False, {"id": "hld_b"})
    one.lost(a, "no answer in time")
    one.declared("policy", why="the fixture's")
    one.close()
    two.close()
    assert (a, b, c) == (1, 1, 2)
    with open(tmp_path / "a.jsonl", "ab") as file:
        file.write(b'{"type":"answered","id":2,"at_')
    history = read_history(tmp_path)
    assert [(op.invoked.id, op.invoked.key) for op in history.operations] == [(1, "a"), (2, "b"), (3, "c")]
    ends = [op.ended for op in history.operations]
    assert isinstance(ends[0], Lost) and isinstance(ends[1], Answered) and ends[2] is None
    assert [e.id for e in ends if e is not None] == [1, 2]
    assert [(fault.what, fault.phase) for fault in history.faults] == [("kill redis", "begin"), ("kill redis", "end")]
    assert [declared.kind for declared in history.declared] == ["policy"]


@pytest.mark.parametrize("damage", ["twice", "never begun", "in the middle"])
def test_a_damaged_history_is_refused(tmp_path: Path, damage: str) -> None:
    """An end without a beginning, a second end, and a broken line that is not the last are no history."""
    writer = HistoryWriter(tmp_path / "h.jsonl")
    if damage == "in the middle":
        (tmp_path / "h.jsonl").write_bytes(b'{"type":"answ\n')
    id = writer.invoked("hold", {}, key="a")
    writer.lost(id, "x")
    if damage == "twice":
        writer.lost(id, "x")
    if damage == "never begun":
        writer.lost(id + 1, "x")
    with pytest.raises(ValueError, match=r"call \d ends|truncated|JSON|malformed|control"):
        read_history(tmp_path)
