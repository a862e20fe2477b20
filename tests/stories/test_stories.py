"""Every story comes out as told, on the reference and on real servers."""

from pathlib import Path
from typing import Any

import pytest
import redis

from flashhold import Engine
from flashhold.domain import commands
from flashhold.domain.model import Swept
from flashhold.domain.outcomes import Applied
from flashhold.engine.keys import partition_keys
from tests.model.reference import Reference
from tests.stories.player import Unexpected, play
from tests.stories.reader import Unreadable, read_story

FOLDER = Path(__file__).parent
STORIES = sorted(FOLDER.glob("*.story"))


class OnReference:
    """The reference as a stage."""

    def __init__(self) -> None:
        self.reference = Reference(now_ms=1_000_000)

    async def do(self, command: Any) -> Any:
        if isinstance(command, commands.Sweep):
            late = self.reference.overdue()
            for claim in late:
                self.reference.expire(str(claim.id))
            return Applied(Swept(len(late), 0, 0, False, None))
        return self.reference.do(command)

    async def pass_time(self, ms: int) -> None:
        self.reference.now_ms += ms

    async def now_ms(self) -> int:
        return self.reference.now_ms


class OnServer:
    """An engine on a real server. Time passes by the store's high-water mark, as after a failover to a faster clock."""

    def __init__(self, engine: Engine, store: "redis.Redis") -> None:
        self.engine, self.store = engine, store
        self.meta = partition_keys("p00").meta

    async def do(self, command: Any) -> Any:
        return await self.engine.submit(command)

    async def pass_time(self, ms: int) -> None:
        self.store.hset(self.meta, "clock", await self.now_ms() + ms)

    async def now_ms(self) -> int:
        await self.engine.read_hold("hld_none")  # every batch stores its clock, also one that changes nothing
        return (await self.engine.place()).clock_ms


@pytest.mark.quick
@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
async def test_on_the_reference(path: Path) -> None:
    """The reference behaves as the story tells."""
    await play(read_story(path), OnReference())


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
async def test_on_a_server(path: Path, engine: Engine, redis_url: str) -> None:
    """The engine behaves as the story tells."""
    with redis.Redis.from_url(redis_url) as store:
        await play(read_story(path), OnServer(engine, store))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("receipt 3 shoe -> done\nann holds 1 shoe as A -> insufficient-stock", Unexpected),
        ("receipt 3 shoe -> done\nstock shoe -> done, 2 sellable", Unexpected),
        ("receipt 3 shoe with key K -> done\nreceipt 3 shoe with key K -> done", Unexpected),
        ("receipt 3 shoe -> done, 3 bananas left", Unreadable),
        ("receipt three shoe -> done", Unreadable),
        ("receipt 3 shoe", Unreadable),
    ],
)
async def test_a_wrong_story_is_noticed(text: str, error: type[Exception], tmp_path: Path) -> None:
    """A story that tells it otherwise, or says what nobody understands, fails."""
    (tmp_path / "wrong.story").write_text(text, encoding="utf-8")
    with pytest.raises(error):
        await play(read_story(tmp_path / "wrong.story"), OnReference())


@pytest.mark.quick
def test_every_story_has_a_title() -> None:
    """Stories are documentation as well."""
    assert len(STORIES) >= 20
    assert all(read_story(path).title for path in STORIES)
