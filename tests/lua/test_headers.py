"""Headers of the scripts are contracts: what they say is read and written is what the server sees."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from flashhold import Applied, Engine, Line, Refused
from flashhold.domain import commands
from flashhold.domain.commands import Command
from flashhold.engine.keys import Keys, partition_keys
from flashhold.engine.scripts import lua_folder
from tests.lua.watching import declared, watched

VERBS = sorted((lua_folder() / "verbs").glob("*.lua"))
INCLUDES = sorted((lua_folder() / "include").glob("*.lua"))


def header(path: Path) -> str:
    """The comment at the top of a file, without the dashes."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").removeprefix(" "))
    return "\n".join(lines)


class Scene(NamedTuple):
    """Five shoes, four of them held: the holds of ann and cat live, those of bob and dan are overdue."""

    ann: str
    bob: str
    cat: str
    dan: str


async def _set(engine: Engine) -> Scene:
    await engine.set_policy("shoe", {"max_per_buyer": 4}, replace=True)
    await engine.move("receipt", "shoe", 5, key="stock")
    await engine.move("receipt", "shoe", 1, key="stock-eu", pool="eu")
    await engine.move("receipt", "sock", 9, key="socks")
    await engine.hold(key="socks-of-ann", lines=[Line("sock", 1)], buyer="ann")
    made = {
        who: await engine.hold(key=who, lines=[Line("shoe", 1)], buyer=who, ttl_ms=ttl_ms)
        for who, ttl_ms in {"ann": 600_000, "cat": 600_000, "bob": 1, "dan": 1}.items()
    }
    await asyncio.sleep(0.01)
    return Scene(**{who: hold.value.id for who, hold in made.items()})


SHOES = {units: (Line("shoe", units),) for units in (1, 2, 3)}
LIMIT = {"max_per_buyer": 5}
ACTS: dict[str, Callable[[Scene], tuple[list[Command], list[Command]]]] = {
    # Two shoes where one is free: one of those overdue has to be taken back.
    "hold": lambda _: ([], [commands.Hold("new", SHOES[2], "eve")]),
    "hold_partially": lambda _: ([], [commands.Hold("new", SHOES[3], "eve", None, True)]),
    "hold_part": lambda _: ([], [commands.HoldPart("new", ".thirteen-more", "", SHOES[2], "{}", "eve")]),
    # A hold that expired and whose shoe has gone to cat, so that dan's has to be taken back; then a part of a hold.
    "commit": lambda scene: (
        [commands.Amend(scene.cat, SHOES[2]), commands.ReadHold(scene.bob), commands.Amend(scene.cat, SHOES[3])],
        [commands.Commit(scene.bob, reacquire=True), commands.Commit(scene.cat, None, SHOES[1])],
    ),
    "release": lambda scene: ([], [commands.Release(scene.ann), commands.Release(scene.bob)]),
    "extend": lambda scene: ([], [commands.Extend(scene.ann, 5_000_000), commands.Extend(scene.bob, 5_000_000)]),
    "amend": lambda scene: ([], [commands.Amend(scene.ann, SHOES[3])]),
    "move": lambda scene: (
        [commands.Commit(scene.ann)],
        [
            commands.Move("cancel", "cancel", "shoe", 1, hold=scene.ann),
            commands.Move("damage", "damage", "shoe", 3),
            commands.Move("transfer", "transfer", "shoe", 1, to_pool="us"),
        ],
    ),
    "policy": lambda _: ([], [commands.SetPolicy("sock", LIMIT, False)]),
    "count": lambda _: (
        [commands.SetPolicy("sock", LIMIT, False)],
        [commands.CountBuyers("sock", 1, True, {"ann": 1})],
    ),
    "read": lambda scene: ([], [commands.ReadHold(scene.bob), commands.ReadStock("shoe")]),
    "expire": lambda _: ([commands.Hold("greedy", (Line("sock", 99),))], [commands.Sweep()]),
}
EVERY_BATCH = {"meta"}
"""Read and written by every batch, and so left out of the verbs' headers."""
MEMORY_OF_KEYS = {"holds", "ended", "refused"}
"""What remembering a key's answer writes, on top of what the verb does."""


async def _let_a_week_pass(engine: Engine, url: str) -> None:
    """So that a sweep finds records to forget, too."""
    with redis.Redis.from_url(url) as store:
        store.hset(partition_keys("p00").meta, "clock", (await engine.place()).clock_ms + 7 * 86_400_000)


def test_every_verb_has_an_act() -> None:
    """A new verb gets a header that is held to the truth, like the others."""
    assert {path.stem for path in VERBS} == set(ACTS)


@pytest.mark.parametrize("path", VERBS, ids=lambda path: path.stem)
async def test_a_verb_touches_what_it_says(path: Path, engine: Engine, redis_url: str) -> None:
    """No key more than its header names, and none less."""
    reads, writes = declared(header(path))
    before, watch = ACTS[path.stem](await _set(engine))
    await engine.submit_many(before)
    if path.stem == "expire":
        await _let_a_week_pass(engine, redis_url)
    with watched(redis_url) as touched:
        outcomes = [await engine.submit(command) for command in watch]
    assert isinstance(outcomes[0], Applied)
    assert touched.read == reads | EVERY_BATCH
    assert touched.written - writes <= EVERY_BATCH | (MEMORY_OF_KEYS if path.stem == "move" else set())
    assert writes <= touched.written


async def test_a_remembered_key_touches_what_remembering_says(engine: Engine, redis_url: str) -> None:
    """A refusal writes its key's memory and nothing else; a replay writes nothing but the clock."""
    await _set(engine)
    with watched(redis_url) as touched:
        assert isinstance(await engine.hold(key="greedy", lines=[Line("sock", 10)]), Refused)
    assert touched.written == {"holds", "refused"} | EVERY_BATCH
    with watched(redis_url) as touched:
        assert (await engine.hold(key="greedy", lines=[Line("sock", 10)])).replayed
    assert touched.written == EVERY_BATCH


async def test_whole_scripts_touch_what_they_say(redis_url: str) -> None:
    """install and inspect, and the KEYS that each takes."""
    async with await Engine.connect(redis_url) as engine:
        for name, run in (("install", engine.install), ("inspect", engine.snapshot)):
            text = header(lua_folder() / f"{name}.lua")
            with watched(redis_url) as touched:
                await run()
            assert (touched.read - {"meta"}, touched.written) == (declared(text)[0] - {"meta"}, declared(text)[1])
            keys = re.search(r"^KEYS +(.*)$", text, re.MULTILINE)
            assert keys is not None
            assert touched.read | touched.written == set(keys[1].split())


def test_apply_takes_every_key_in_its_order() -> None:
    """KEYS of the header, the locals of the script and keys.py agree, name by name."""
    text = (lua_folder() / "apply.lua").read_text(encoding="utf-8")
    keys = re.search(r"^-- KEYS +(.*?)  ", text, re.MULTILINE)
    assert keys is not None
    assert tuple(keys[1].split()) == Keys._fields
    names = re.findall(r"^local ([A-Z, ]+) = (KEYS.*)$", text, re.MULTILINE)
    locals_in_order = [name.strip().lower() for line, _ in names for name in line.split(",")]
    assert tuple(locals_in_order) == Keys._fields
    assert re.findall(r"KEYS\[(\d)\]", " ".join(right for _, right in names)) == [str(n) for n in range(1, 10)]


@pytest.mark.parametrize("path", INCLUDES, ids=lambda path: path.stem)
def test_an_include_names_the_keys_that_it_uses(path: Path) -> None:
    """Every key that its code passes to a call is in its header, on the right side."""
    if path.stem == "slices":
        return  # it works on the key that it is given, and says so
    reads, writes = declared(header(path))
    code = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("--"))
    names = "|".join(name.upper() for name in Keys._fields)
    calls = re.findall(rf"(?:redis\.call|write_all)\('([A-Z]+)', ({names})\b", code)
    calls += [("HMGET", name) for name in re.findall(rf"read_all\(({names})\b", code)]
    used_to_write = {name.lower() for command, name in calls if command in WRITING}
    used_to_read = {name.lower() for command, name in calls if command not in WRITING}
    assert used_to_write <= writes
    assert used_to_read <= reads


WRITING = {"HSET", "HDEL", "ZADD", "ZREM", "RPUSH", "LTRIM", "XADD"}


@pytest.mark.parametrize("path", [*VERBS, *INCLUDES, *sorted(lua_folder().glob("*.lua"))], ids=lambda path: path.stem)
def test_a_file_begins_with_what_it_is(path: Path) -> None:
    """The name, a colon, a sentence; for a verb also how the command is laid out and what is replied."""
    text = header(path)
    assert re.match(rf"{path.stem}(_\w+)?: ", text)
    if path in VERBS:
        assert "{verb" in text
        assert "REPLIES" in text
