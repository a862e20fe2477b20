"""Bugs planted into copies of the scripts: a judge that has never caught one proves nothing."""

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from flashhold import Engine, EngineOptions, Line
from flashhold.engine.scripts import lua_folder
from tests.engine.crowd import Crowd
from tests.engine.duel import Duel

LIVES_MAX = 25
"""Shops that may trade before a bug must have shown itself."""


class Bug(NamedTuple):
    """`wrong` in the place of `right` in a file."""

    what: str
    file: str
    right: str
    wrong: str


BUGS = [
    Bug(
        "stock is not looked at",
        "include/cart.lua",
        "if not short then return nil end",
        "if true then return nil end",
    ),
    Bug(
        "two lines of one SKU are checked one by one",
        "include/cart.lua",
        "need[2] = need[2] + line[3]",
        "need[2] = math.max(need[2], line[3])",
    ),
    Bug(
        "overdue holds keep their stock until somebody sweeps",
        "include/overdue.lua",
        "while sellable(p) < wanted and not p.all_seen do",
        "while false do",
    ),
    Bug(
        "a hold lives one millisecond longer than its deadline",
        "include/endings.lua",
        "if r.state == HELD and r.expires_ms <= now then expire(r) end",
        "if r.state == HELD and r.expires_ms < now then expire(r) end",
    ),
    Bug(
        "what expires is not written down",
        "include/endings.lua",
        "record_hold('expire', r, give_back(r), nil, '', '', false)",
        "give_back(r)",
    ),
    Bug(
        "an expired hold still counts for its buyer",
        "include/endings.lua",
        "add_share(line[1], r.buyer, -line[3])",
        "local _ = r.buyer",
    ),
    Bug(
        "refusals are not remembered",
        "include/idempotency.lua",
        "(kind == REFUSAL and TRANSIENT[reply[3]])",
        "kind == REFUSAL",
    ),
    Bug(
        "a key may be used for something else",
        "include/idempotency.lua",
        "if fingerprint_of_record(r) ~= c[3] then",
        "if false then",
    ),
    Bug(
        "a repeated hold is answered with what has become of it",
        "include/idempotency.lua",
        "return original_reply(r)",
        "return hold_reply(r, 1)",
    ),
    Bug(
        "one unit more than the limit",
        "include/cart.lua",
        "if already + more > s.max_per_buyer then",
        "if already + more > s.max_per_buyer + 1 then",
    ),
    Bug(
        "a sale closes a millisecond late",
        "include/cart.lua",
        "s.closes_at_ms <= now",
        "s.closes_at_ms < now",
    ),
    Bug(
        "a shortfall is not marked",
        "include/changes.lua",
        "math.max(0, -sellable(p))",
        "0",
    ),
    Bug(
        "the chain forgets what came before",
        "include/journal.lua",
        "'%s:%d:%d:%d:%d:%s', chain, epoch",
        "'%s:%d:%d:%d:%d:%s', string.rep('0', 40), epoch",
    ),
    Bug(
        "a release gives back twice",
        "verbs/release.lua",
        "local changes, lines = give_back(r), {}",
        "give_back(r)\n    local changes, lines = give_back(r), {}",
    ),
    Bug(
        "units that a partial commit does not sell are lost",
        "verbs/commit.lua",
        "0, back, -line[3], takes[i], 0)",
        "0, 0, -line[3], takes[i], 0)",
    ),
    Bug(
        "a commit may take more than is held",
        "verbs/commit.lua",
        "if left > 0 then return nil end",
        "if left > 1 then return nil end",
    ),
    Bug(
        "an extension shortens",
        "verbs/extend.lua",
        "math.max(r.expires_ms, math.min(",
        "(math.min(",
    ),
    Bug(
        "an amended hold competes with itself",
        "verbs/amend.lua",
        "needs[i][5] = (needs[i][5] or 0) + line[3]",
        "needs[i][5] = 0",
    ),
    Bug(
        "more can be shipped than was sold",
        "verbs/move.lua",
        "if q > p.committed then",
        "if q > p.committed + 1 then",
    ),
    Bug(
        "a hold of several lines checks only the first",
        "verbs/hold.lua",
        "claims and not claims[2] and not limited",
        "claims and not limited",
    ),
    Bug(
        "holds of a run that is broken up are journalled from its start",
        "verbs/hold.lua",
        "return {unpack(list, from, to)}",
        "return {unpack(list, 1, to - from + 1)}",
    ),
    Bug(
        "what a hold asked for does not include its time",
        "include/idempotency.lua",
        "pack('hold', metadata, asked_ttl_ms, flat)",
        "pack('hold', metadata, flat)",
    ),
    Bug(
        "a packed expiry is not kept",
        "include/expiries.lua",
        "#record_values + 1], record_values[#record_values + 2] = digest, packed",
        "#record_values + 1], record_values[#record_values + 2] = digest, raw",
    ),
    Bug(
        "what a hold expires on its way is written over",
        "verbs/hold.lua",
        "values = #record_values -- it may",
        "local _ = values -- it may",
    ),
    Bug(
        "the first of those named together stands for all",
        "include/overdue.lua",
        "seen_to[member] = (seen_to[member] or 0) + 1",
        "seen_to[member] = (#member - HEAD_BYTES) / DIGEST_BYTES",
    ),
    Bug(
        "what is left of those named together is not scheduled again",
        "include/deadlines.lua",
        "if at < #member then",
        "if false then",
    ),
    Bug(
        "a packed expiry forgets the buyer's share",
        "include/expiries.lua",
        "if not line or counted_skus then return nil end",
        "if not line then return nil end",
    ),
]


async def _trade(url: str, folder: Path) -> int:
    """Let shops trade with the scripts of a folder; how many closed without a difference. Raises Disagreement,
    an AssertionError."""
    options = EngineOptions(lua_folder=folder, retention_ms=10**13, refused_retention_ms=10**13)
    for life in range(LIVES_MAX):
        with redis.Redis.from_url(url) as client:
            client.flushall()
        async with await Engine.connect(url, options=options) as engine:
            await engine.install()
            duel = await Duel(engine, url).start()
            try:
                await Crowd(life).live(duel, batches=40)
            finally:
                duel.close()
    return LIVES_MAX


def _planted(bug: Bug, folder: Path) -> Path:
    """A copy of the scripts with the bug in it."""
    shutil.copytree(lua_folder(), folder)
    file = folder / bug.file
    text = file.read_text(encoding="utf-8")
    assert bug.right in text, f"{bug.file} has changed; plant the bug anew: {bug.right}"
    file.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")
    return folder


async def test_a_reply_that_makes_no_sense_keeps_nobody_waiting(one_redis_url: str, tmp_path: Path) -> None:
    """A bug between script and engine reaches the caller as what it is, and the engine goes on."""
    bug = Bug("a reply of no known kind", "verbs/hold.lua", "{HELD_NEW, expires_ms,", "{99, expires_ms,")
    options = EngineOptions(lua_folder=_planted(bug, tmp_path / "lua"))
    async with asyncio.timeout(5), await Engine.connect(one_redis_url, options=options) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 5, key="stock")
        with pytest.raises(AssertionError):
            await engine.hold(key="cart", lines=[Line("shoe", 1)])
        assert (await engine.read_stock("shoe")).value.held == 1


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what.replace(" ", "-"))
async def test_is_caught(bug: Bug, one_redis_url: str, tmp_path: Path) -> None:
    """The reference notices the bug within a few shops, or the engine cannot make sense of what comes back."""
    with pytest.raises(AssertionError):
        await _trade(one_redis_url, _planted(bug, tmp_path / "lua"))


async def test_a_faithful_copy_is_not(one_redis_url: str, tmp_path: Path) -> None:
    """The same shops with unchanged scripts close without a difference: it was the bugs that were caught."""
    shutil.copytree(lua_folder(), tmp_path / "lua")
    assert await _trade(one_redis_url, tmp_path / "lua") == LIVES_MAX
