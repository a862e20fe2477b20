"""The reference says what the code says, and where its words are only prose, what a server does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import redis

from flashhold import Engine, Line
from flashhold.domain.entries import BUCKETS, KINDS
from flashhold.engine.journal import Journal, decode_batch
from flashhold.settings import DurabilityLevel
from tests.docs.blocks import ROOT


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _generator()
PAGES = sorted(generate.REFERENCE.glob("*.md"))


@pytest.mark.quick
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_what_the_code_says(page: Path) -> None:
    """Otherwise: `make docs`."""
    text = page.read_text(encoding="utf-8")
    assert generate.filled(text) == text


@pytest.mark.quick
def test_every_table_is_on_a_page() -> None:
    """A table that no page asks for would be made for nobody, and a marker mistyped would keep an old one."""
    asked = [name for page in PAGES for _, name, _ in generate.REGION.findall(page.read_text(encoding="utf-8"))]
    assert sorted(asked) == sorted(generate.REGIONS)


@pytest.mark.quick
def test_an_outdated_table_is_noticed() -> None:
    """The comparison can fail."""
    outdated = "<!-- made: buckets -->\n\n| bucket |\n\n<!-- /made -->"
    assert generate.filled(outdated) != outdated


@pytest.mark.quick
def test_the_levels_offered_are_those_that_can_be_chosen() -> None:
    """The page on durability marks what the setting does not take yet, and forgets no level that it takes."""
    page = (ROOT / "docs" / "explanation" / "durability.md").read_text(encoding="utf-8")
    offered = dict(re.findall(r"^\| `(\w+)` \| (yes|not yet)", page, re.MULTILINE))
    assert list(offered) == ["memory", "disk", "replica", "ledger"]
    assert {level for level, is_offered in offered.items() if is_offered == "yes"} == set(get_args(DurabilityLevel))
    sections = re.findall(r"^## `(\w+)`(: not offered yet)?$", page, re.MULTILINE)
    assert [(level, bool(mark)) for level, mark in sections] == [(one, offered[one] == "not yet") for one in offered]


def _moves(words: str) -> set[tuple[str, int]]:
    """(bucket, sign) out of words such as `held → committed` and `outside ↔ available`."""
    moves = set()
    for source, arrow, target in re.findall(r"(\w+) (→|↔) (\w+)", words):
        moves |= {(source, -1), (target, 1)} | ({(source, 1), (target, -1)} if arrow == "↔" else set())
    return moves


async def _one_of_each(engine: Engine) -> None:
    """Something of every kind that there is, both directions where there are two."""
    await engine.move("receipt", "mug", 30, key="receipt")
    await engine.set_policy("mug", {"hold_ttl_ms": 60_000}, replace=False)
    holds = [
        (await engine.hold(key=f"cart-{n}", lines=[Line("mug", 3)], ttl_ms=20 if n == 3 else None)).value.id
        for n in range(4)
    ]
    await engine.amend(holds[0], lines=[Line("mug", 5)])
    await engine.amend(holds[0], lines=[Line("mug", 2)])
    await engine.extend(holds[0], ttl_ms=120_000)
    await engine.commit(holds[0])
    await engine.commit(holds[1], lines=[Line("mug", 2)])
    await engine.release(holds[2])
    while (await engine.read_hold(holds[3])).value.state.label != "expired":
        await engine.sweep()
    await engine.move("shipment", "mug", 1, key="shipment")
    await engine.move("return", "mug", 1, key="return")
    await engine.move("cancel", "mug", 1, key="cancel")
    await engine.move("damage", "mug", 1, key="damage")
    await engine.move("transfer", "mug", 1, key="transfer", to_pool="eu")
    await engine.move("adjustment", "mug", 2, key="more", reason="count")
    await engine.move("adjustment", "mug", -2, key="less", reason="count")


async def test_entries_move_what_the_table_says(one_redis_url: str) -> None:
    """The column `moves` is prose; here each kind is carried out and its postings are held against it."""
    async with await Engine.connect(one_redis_url) as engine:
        await engine.install()
        await _one_of_each(engine)
    seen: dict[str, set[tuple[str, int]]] = {}
    with redis.Redis.from_url(one_redis_url) as client:
        for batch in Journal(client, "p00").read("0", 1000, 0):
            for entry in decode_batch(batch):
                signs = {
                    (bucket, 1 if units > 0 else -1)
                    for change in entry.changes
                    for bucket, units in zip(BUCKETS, change[2:], strict=True)
                    if units
                }
                seen.setdefault(entry.kind, set()).update(signs)
    said = {kind: _moves(generate.ENTRY_KINDS[kind][0]) for kind in KINDS if kind != "restore"}
    assert seen == said
