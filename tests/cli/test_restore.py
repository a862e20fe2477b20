"""`flashhold restore`: says what it finds, does nothing without leave, and tells what it has done."""

import json
import os
import subprocess
import sys
from typing import Any

from flashhold.domain.model import Line
from tests.services.shop import open_shop


def restore(redis_url: str, database_url: str, *words: str) -> tuple[int, Any]:
    """Run it as an operator would; its exit status and what it says, as JSON where that was asked for."""
    environ = {**os.environ, "FLASHHOLD_REDIS_URL": redis_url, "FLASHHOLD_DATABASE_URL": database_url}
    done = subprocess.run(
        [sys.executable, "-m", "flashhold", "restore", *words], env=environ, capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout) if "--json" in words else done.stdout


async def test_from_a_look_to_a_rebuilt_store(one_redis_url: str, database_url: str) -> None:
    """Whole: 0. Emptied: 1 and a sentence, nothing done. With leave: 0, one JSON object, and the shop is back."""
    async with open_shop(one_redis_url, database_url) as shop:
        await shop.engine.move("receipt", "shoe", 5, key="r")
        held = await shop.hold(Line("shoe", 2))
        shop.writing.drain()
        shop.writing.close()
        assert restore(one_redis_url, database_url, "--json")[1]["found"] == "whole"
        assert restore(one_redis_url, database_url)[0] == 0
        shop.client.flushall()
        status, said = restore(one_redis_url, database_url)
        assert status == 1
        assert "Redis is empty, the ledger at epoch 1, seq 2." in said and "under epoch 2" in said
        assert shop.client.keys("*") == []
        status, report = restore(one_redis_url, database_url, "--yes", "--json")
        assert status == 0
        assert (report["restored"], report["found"], report["why"]) == (True, "store-empty", "by-hand")
        assert (report["epoch"], report["seq"], report["holds_live"], report["missing"]) == (2, 3, 1, None)
        assert (await shop.engine.release(held.id)).value.epoch == 2
        assert restore(one_redis_url, database_url)[0] == 0


async def test_what_is_missing_is_told_and_ends_with_1(one_redis_url: str, database_url: str) -> None:
    """The journal was deleted with an entry in it that the ledger had not: its seq is named, and the level."""
    async with open_shop(one_redis_url, database_url) as shop:
        await shop.engine.move("receipt", "shoe", 5, key="r")
        shop.writing.drain()
        shop.writing.close()
        await shop.hold(Line("shoe", 2))
        shop.client.delete(shop.keys.journal)
        status, said = restore(one_redis_url, database_url)
        assert status == 1 and "its journal does not continue the ledger" in said
        status, said = restore(one_redis_url, database_url, "--yes")
        assert status == 1
        assert "Missing: 1 entries, seq 2 to 2 of epoch 1" in said and "acknowledged at level disk" in said
        assert (await shop.engine.read_stock("shoe")).value.held == 0
