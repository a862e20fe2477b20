"""The server's edge over a bare socket: sizes, slowness, broken HTTP, pipelining."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.http.conftest import Api, running_api, valkey

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECEIPT_SECONDS = 0.6


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(redis_servers: Callable[[str], str], module_database_url: str) -> AsyncIterator[Api]:
    """An API that is impatient with slow senders."""
    impatient = {"receipt_timeout_ms": round(RECEIPT_SECONDS * 1000)}
    async with running_api(valkey(redis_servers), module_database_url, **impatient) as running:
        yield running


class Socket:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, api: Api) -> "Socket":
        host, port = api.url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of the next answer."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, json.loads(body) if body else None

    async def ended(self) -> bool:
        """Whether the server closes the connection, in at most five seconds."""
        return await asyncio.wait_for(self.reader.read(1), 5) == b""


def request(api: Api, body: bytes, *headers: str, path: str = "/v1/holds", key: str = "k") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {api.admin_key}", f"Idempotency-Key: {key}",
        "Content-Type: application/json", f"Content-Length: {len(body)}", *headers,
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def hold_body(api: Api) -> bytes:
    return json.dumps({"lines": [{"sku": await api.stocked(50), "quantity": 1}]}).encode()


@pytest.mark.parametrize("path", ["/v1/holds", "/healthz"])
async def test_too_many_headers(api: Api, path: str) -> None:
    """431 as a problem, and the connection ends."""
    connection = await Socket.to(api)
    await connection.send(request(api, b"", *(f"X-{i}: y" for i in range(200)), path=path))
    status, headers, told = await connection.answer()
    assert (status, told["code"], headers["content-type"]) == (431, "headers-too-large", "application/problem+json")
    assert await connection.ended()


@pytest.mark.parametrize("size", [20_000, 300_000, 3_000_000])
async def test_too_long_headers(api: Api, size: int) -> None:
    """431 for one long header, a long path or a long query, however they arrive."""
    for data in (
        request(api, b"", "X: " + "y" * size),
        request(api, b"", path="/v1/skus/" + "y" * size),
        b"GET /v1/ledger?sku=" + b"y" * size,
    ):
        connection = await Socket.to(api)
        for at in range(0, len(data), 65_536):
            try:
                await connection.send(data[at : at + 65_536])
            except ConnectionError:
                break
            await asyncio.sleep(0)
        try:
            status, _, told = await connection.answer()
        except (asyncio.IncompleteReadError, ConnectionError):
            # The answer can be lost when the server ends a connection into which more is being written.
            continue
        assert (status, told["code"]) == (431, "headers-too-large")


async def test_headers_within_the_limits(api: Api) -> None:
    """Ninety headers of 100 bytes are fine."""
    connection = await Socket.to(api)
    body = await hold_body(api)
    await connection.send(request(api, body, *(f"X-{i}: {'y' * 90}" for i in range(90)), key="within"))
    assert (await connection.answer())[0] == 201


@pytest.mark.parametrize("cut", [5, 60, -20])
async def test_slow_senders(api: Api, cut: int) -> None:
    """408 when a request has not arrived whole in time, be it cut in its head or in its body; nothing is held."""
    connection = await Socket.to(api)
    data = request(api, await hold_body(api), key="slow")
    began = time.monotonic()
    await connection.send(data[:cut])
    status, headers, told = await connection.answer()
    assert (status, told["code"], headers["connection"]) == (408, "request-timeout", "close")
    assert time.monotonic() - began == pytest.approx(RECEIPT_SECONDS, abs=0.5)
    assert await connection.ended()


async def test_a_slow_second_request(api: Api) -> None:
    """The deadline is for every request of a connection, not only for its first."""
    connection, body = await Socket.to(api), await hold_body(api)
    await connection.send(request(api, body, key="quick"))
    assert (await connection.answer())[0] == 201
    await connection.send(request(api, body, key="slow-2")[:50])
    assert (await connection.answer())[0] == 408


async def test_drip_feeding_does_not_help(api: Api) -> None:
    """The deadline is for the whole request: a byte now and then does not move it."""
    connection = await Socket.to(api)
    began = time.monotonic()

    async def drip() -> None:
        for byte in request(api, b"{}", key="drip"):
            await connection.send(bytes([byte]))
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    status, _, _ = await connection.answer()
    assert status == 408
    assert time.monotonic() - began < RECEIPT_SECONDS + 0.6
    dripping.cancel()


async def test_slow_readers(api: Api) -> None:
    """A client that asks and asks and reads none of the answers is cut off; it cannot pin their memory."""
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4_096)
    asks = 300
    size = len((await api.client.get("/openapi.json")).content)
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * asks)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
    await asyncio.sleep(RECEIPT_SECONDS + 1.5)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    received = 0
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(reader.read(1 << 20), 5):
            received += len(data)
    assert received < asks * size
    writer.close()


async def test_a_silent_connection_is_closed(api: Api) -> None:
    """A connection on which nothing is ever said ends after the receipt deadline."""
    assert await (await Socket.to(api)).ended()


async def test_a_kept_connection_may_be_silent(api: Api) -> None:
    """Between two requests a client may be silent for longer than a request may take to arrive."""
    connection, body = await Socket.to(api), await hold_body(api)
    await connection.send(request(api, body, key="before"))
    assert (await connection.answer())[0] == 201
    await asyncio.sleep(RECEIPT_SECONDS * 1.5)
    await connection.send(request(api, body, key="after"))
    assert (await connection.answer())[0] == 201


async def test_a_request_in_pieces_is_read(api: Api) -> None:
    """A request that arrives in several pieces, in time, is served like any other."""
    connection = await Socket.to(api)
    data = request(api, await hold_body(api), key="pieces")
    for at in range(0, len(data), 100):
        await connection.send(data[at : at + 100])
        await asyncio.sleep(0.01)
    assert (await connection.answer())[0] == 201


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
     b"POST /v1/holds HTTP/1.1\r\nContent-Length: x\r\n\r\n",
     b"POST /v1/holds HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"GET / HTTP/1.1\r\nA B: c\r\n\r\n",
     b"POST /v1/holds HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
)  # fmt: skip
async def test_broken_http(api: Api, data: bytes) -> None:
    """400 as a problem for what is no HTTP, or the 401 that came before it was seen; never a 5xx."""
    connection = await Socket.to(api)
    await connection.send(data)
    status, headers, told = await connection.answer()
    assert headers["content-type"] == "application/problem+json"
    assert (status, told["code"]) in ((400, "malformed-request"), (401, "unauthenticated"))


async def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    """Requests sent without waiting get their answers in order, hot and cold ones mixed."""
    connection, body = await Socket.to(api), await hold_body(api)
    cold = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    await connection.send(b"".join(request(api, body, key=f"pipe-{i}") + cold for i in range(10)))
    answers = [await connection.answer() for _ in range(20)]
    assert [status for status, _, _ in answers] == [201, 200] * 10
    assert all(told == {"status": "ok"} for _, _, told in answers[1::2])
    seqs = [told["seq"] for _, _, told in answers[::2]]
    assert seqs == sorted(set(seqs))


async def test_a_broken_request_behind_a_good_one(api: Api) -> None:
    """A broken request in the pipeline never takes the place of the answer to the one before it."""
    connection, body = await Socket.to(api), await hold_body(api)
    await connection.send(request(api, body, key="good") + b"nonsense\r\n\r\n")
    try:
        status, _, _ = await connection.answer()
    except asyncio.IncompleteReadError:
        return  # the connection ended: the outcome is unknown to the client, which is honest
    assert status == 201


async def test_connection_close_is_kept(api: Api) -> None:
    """A client that wants the connection closed gets its answer first."""
    connection = await Socket.to(api)
    await connection.send(request(api, await hold_body(api), "Connection: close", key="close"))
    status, headers, _ = await connection.answer()
    assert (status, headers["connection"]) == (201, "close")
    assert await connection.ended()


async def test_http_1_0(api: Api) -> None:
    """An old client is served."""
    connection = await Socket.to(api)
    await connection.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (await connection.answer())[0] == 200


async def test_expect_continue(api: Api) -> None:
    """A client that asks before sending its body is told to go on, or that it is too large."""
    connection, body = await Socket.to(api), await hold_body(api)
    data = request(api, body, "Expect: 100-continue", key="expect")
    await connection.send(data[: -len(body)])
    assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    await connection.send(body)
    assert (await connection.answer())[0] == 201
    large = await Socket.to(api)
    await large.send(request(api, b"x" * 70_000, "Expect: 100-continue")[:-70_000])
    assert (await large.answer())[0] == 413


async def test_head(api: Api) -> None:
    """What may be read may be asked for its headers alone."""
    answer = await api.client.head("/v1/holds")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_a_client_that_goes_away(api: Api) -> None:
    """A client that ends in the middle of its body disturbs nobody."""
    connection = await Socket.to(api)
    await connection.send(request(api, await hold_body(api), key="gone")[:-5])
    connection.writer.close()
    await asyncio.sleep(0.1)
    assert (await api.client.get("/healthz")).status_code == 200


async def test_too_many_connections(redis_servers: Callable[[str], str], database_url: str) -> None:
    """Beyond the limit of connections a request is answered 429, and served again when others have gone."""
    async with running_api(valkey(redis_servers), database_url, connections_max=5) as small:
        idle = [await Socket.to(small) for _ in range(5)]
        await asyncio.sleep(0.05)
        late = await Socket.to(small)
        await late.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await late.answer())[0] == 429
        for connection in idle:
            connection.writer.close()
        await asyncio.sleep(0.05)
        again = await Socket.to(small)
        await again.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await again.answer())[0] == 200
