"""Level `ledger` with a real ledger behind it."""

import asyncio

import pytest

from flashhold import Applied, EngineOptions, Line
from flashhold.domain.errors import NotDurable
from flashhold.engine.durability import Durability
from flashhold.engine.engine import Engine
from flashhold.ledger.reader import Reader
from flashhold.services.ledger_gate import LedgerWatch
from tests.ledger.tables import rows
from tests.services.shop import open_shop


def _at_level_ledger(reader: Reader, timeout_ms: int) -> EngineOptions:
    gate = LedgerWatch(reader).reached
    return EngineOptions(durability=Durability.LEDGER, ledger_gate=gate, reply_timeout_ms=timeout_ms)


def _seqs(database_url: str) -> set[int]:
    return {seq for (seq,) in rows(database_url, "SELECT seq FROM entries")}


async def test_what_is_acknowledged_is_in_postgres(redis_url: str, database_url: str) -> None:
    """Each answer comes after its row, for one request and for a hundred at once."""
    async with open_shop(redis_url, database_url) as shop:
        reader = Reader(database_url)
        async with await Engine.connect(redis_url, options=_at_level_ledger(reader, 5_000)) as engine:
            stop = asyncio.Event()

            async def write() -> None:
                while not stop.is_set():
                    await asyncio.to_thread(shop.writing.drain)
                    await asyncio.sleep(0.005)

            writing = asyncio.create_task(write())
            await engine.move("receipt", "shoe", 500, key="stock")
            for number in range(5):
                made = await engine.hold(key=f"cart-{number}", lines=[Line("shoe", 1)])
                assert isinstance(made, Applied)
                assert made.value.seq in _seqs(database_url)
            crowd = await asyncio.gather(*(engine.hold(key=f"crowd-{n}", lines=[Line("shoe", 1)]) for n in range(100)))
            known = _seqs(database_url)
            assert all(isinstance(one, Applied) and one.value.seq in known for one in crowd)
            stop.set()
            await writing
        await reader.close()


async def test_without_a_writer_nothing_is_acknowledged(one_redis_url: str, database_url: str) -> None:
    """The hold is made, and told to nobody: the same key gets the answer when the ledger has come after."""
    async with open_shop(one_redis_url, database_url) as shop:
        reader = Reader(database_url)
        async with await Engine.connect(one_redis_url, options=_at_level_ledger(reader, 300)) as engine:
            with pytest.raises(NotDurable):
                await engine.move("receipt", "shoe", 5, key="stock")
            await asyncio.to_thread(shop.writing.drain)
            again = await engine.move("receipt", "shoe", 5, key="stock")
            assert isinstance(again, Applied) and again.replayed
        await reader.close()
