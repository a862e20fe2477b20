"""Two versions on the same stores, as during an upgrade: other scripts, an earlier revision of the ledger."""

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis

import flashhold
from flashhold import Applied, Engine, EngineOptions, Line
from flashhold.domain.errors import Misconfigured
from flashhold.engine.scripts import load_scripts, lua_folder
from flashhold.ledger.api_keys import new_key, register
from flashhold.ledger.schema import upgrade
from tests.http.conftest import serving, valkey
from tests.ledger.tables import rows

MIGRATIONS = Path(flashhold.__file__).parent / "ledger" / "migrations" / "versions"
REVISIONS = sorted(path.name[:4] for path in MIGRATIONS.glob("0*.py"))


def other_scripts(folder: Path) -> Path:
    """A copy of the scripts whose text, and so whose SHA, differs in a comment."""
    shutil.copytree(lua_folder(), folder)
    for script in folder.rglob("*.lua"):
        script.write_text(script.read_text() + "\n-- another version\n")
    return folder


def earlier_version(directory: Path) -> Path:
    """The program as it was one revision of the ledger ago, with other scripts; to be put on PYTHONPATH."""
    source = directory / "src"
    shutil.copytree(Path(flashhold.__file__).parent, source / "flashhold", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(source / "flashhold" / "lua", ignore_errors=True)
    other_scripts(directory / "lua")
    for file in (source / "flashhold" / "ledger" / "migrations" / "versions").glob(f"{REVISIONS[-1]}*"):
        file.unlink()
    return source


async def test_engines_with_other_scripts_decide_together(one_redis_url: str, tmp_path: Path) -> None:
    """Each version's answer to a key is the other's replay, stock is counted once, also after SCRIPT FLUSH."""
    others = EngineOptions(lua_folder=other_scripts(tmp_path / "lua"))
    assert load_scripts(others.lua_folder).apply.sha != load_scripts().apply.sha
    async with await Engine.connect(one_redis_url) as new, await Engine.connect(one_redis_url, options=others) as old:
        await new.install()
        await new.move("receipt", "s", 100, key="stock")
        for number in range(60):
            first, second = (new, old) if number % 2 else (old, new)
            if number == 30:
                with redis.Redis.from_url(one_redis_url) as client:
                    client.script_flush()
            made = await first.hold(key=f"k{number}", lines=[Line("s", 1)])
            again = await second.hold(key=f"k{number}", lines=[Line("s", 1)])
            assert isinstance(made, Applied) and isinstance(again, Applied)
            assert (made.replayed, again.replayed) == (False, True)
            assert again.value == made.value
        left = await new.read_stock("s")
        assert isinstance(left, Applied)
        assert (left.value.held, left.value.available) == (60, 40)


@pytest.fixture
def stores(redis_servers: Callable[[str], str], empty_database_url: str) -> Iterator[dict[str, str]]:
    """The variables of a deployment on an empty Redis and a database without tables."""
    yield {"FLASHHOLD_REDIS_URL": valkey(redis_servers), "FLASHHOLD_DATABASE_URL": empty_database_url}


def test_an_earlier_version_serves_beside_the_present_one(stores: dict[str, str], tmp_path: Path) -> None:
    """It was there first; the new one upgrades the ledger under it; it goes on, may be restarted, and both agree. The
    new version's worker brings what both have decided into the ledger, and the audit is clean."""
    database_url, key = stores["FLASHHOLD_DATABASE_URL"], new_key()
    earlier = {**stores, "PYTHONPATH": str(earlier_version(tmp_path))}
    body = {"lines": [{"sku": "s", "quantity": 1}]}
    with serving(1, **earlier) as (_, old_url):
        assert rows(database_url, "SELECT version_num FROM alembic_version") == [(REVISIONS[-2],)]
        register(database_url, key, ["admin"])
        with serving(1, **stores) as (_, new_url), httpx.Client(headers={"Authorization": f"Bearer {key}"}) as client:
            assert rows(database_url, "SELECT version_num FROM alembic_version") == [(REVISIONS[-1],)]
            receipt = {"type": "receipt", "sku": "s", "quantity": 1_000}
            _until(lambda: _post(client, f"{old_url}/v1/movements", receipt).status_code == 201)
            _sell_at_both(client, old_url, new_url, body, 20)
            with serving(1, **earlier) as (_, restarted_url):
                _sell_at_both(client, restarted_url, new_url, body, 20)
                _worker_and_audit(stores, 1 + 40)
                listed = client.get(f"{restarted_url}/v1/holds?limit=100").json()["items"]
                assert len(listed) == 40
    assert rows(database_url, "SELECT version_num FROM alembic_version") == [(REVISIONS[-1],)]


def _sell_at_both(client: httpx.Client, one: str, other: str, body: Any, times: int) -> None:
    for number in range(times):
        key = uuid.uuid4().hex
        first, second = (one, other) if number % 2 else (other, one)
        made = _post(client, f"{first}/v1/holds", body, key)
        again = _post(client, f"{second}/v1/holds", body, key)
        assert (made.status_code, again.status_code) == (201, 201), (made.text, again.text)
        assert made.json() == again.json()
        assert again.headers["idempotency-replayed"] == "true"


def _post(client: httpx.Client, url: str, body: Any, key: str | None = None) -> httpx.Response:
    return client.post(url, json=body, headers={"Idempotency-Key": key or uuid.uuid4().hex})


def _until(done: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.2)


def _worker_and_audit(stores: dict[str, str], entries: int) -> None:
    words = [sys.executable, "-P", "-m", "flashhold"]
    environ = {**os.environ, **stores}
    worker = subprocess.Popen([*words, "worker"], env=environ, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: rows(stores["FLASHHOLD_DATABASE_URL"], "SELECT count(*) FROM entries") == [(entries,)], 40)
    finally:
        worker.terminate()
        worker.wait(20)
    audited = subprocess.run([*words, "audit"], env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert audited.returncode == 0, audited.stdout + audited.stderr


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_revision_only_adds_to_an_earlier_one(
    stores: dict[str, str], database_url: str, revision: str, tmp_path: Path
) -> None:
    """What a version of an earlier revision writes (its columns, no others) the newest tables take, and what it reads
    is there with the type that it knows."""
    earlier_url = stores["FLASHHOLD_DATABASE_URL"]
    _at(earlier_url, revision, tmp_path)
    before, now = _columns(earlier_url), _columns(database_url)
    assert {column: now.get(column) for column in before} == before, "renamed, removed or of another type"
    assert _required(database_url) <= _required(earlier_url), "an earlier version's rows lack it"
    assert _rules(database_url) <= _rules(earlier_url), "a rule that an earlier version's rows may break"


def test_a_database_of_a_later_version_is_used_as_it_is(database_url: str) -> None:
    """A version that starts after a later one has upgraded finds a revision that it does not know, and goes on."""
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert upgrade(database_url) == "9999"
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("UPDATE alembic_version SET version_num = 'zebra'")
    with pytest.raises(Misconfigured, match="zebra"):
        upgrade(database_url)


def _at(database_url: str, revision: str, directory: Path) -> None:
    """Bring an empty database to an earlier revision, by the program of that time."""
    source = earlier_version(directory)
    for file in (source / "flashhold" / "ledger" / "migrations" / "versions").glob("0*"):
        if re.fullmatch(r"\d{4}", file.name[:4]) and file.name[:4] > revision:
            file.unlink()
    script = f"from flashhold.ledger import upgrade; print(upgrade({database_url!r}))"
    ran = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(source)}, check=False, capture_output=True, text=True
    )
    assert ran.stdout.strip() == revision, ran.stderr


def _columns(database_url: str) -> dict[tuple[str, str], str]:
    found = rows(
        database_url,
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'",
    )
    return {(table, column): kind for table, column, kind in found}


def _required(database_url: str) -> set[tuple[str, str]]:
    """Columns that a row must give."""
    return set(
        rows(
            database_url,
            """SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'
                  AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'""",
        )
    )


def _rules(database_url: str) -> set[tuple[str, str]]:
    """CHECK, UNIQUE and foreign keys: table and text."""
    return set(
        rows(
            database_url,
            """SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
                WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'u', 'f', 'p', 'x')""",
        )
    )
