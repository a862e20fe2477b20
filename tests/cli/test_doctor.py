"""`flashhold doctor`: each unsafe setting gets its sentence; safe stores get none."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from flashhold.embedded.child import Child
from flashhold.embedded.servers import _POSTGRES_SETTINGS, _REDIS_SETTINGS, PostgresServer
from flashhold.services.store_check import check, clock_findings, postgres_findings, redis_findings
from tests.conftest import running

VALKEY = {"valkey_version": "9.1.2", "redis_version": "7.2.4", "role": "master"}


def doctor(redis_url: str, database_url: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as an operator would."""
    environ = {**os.environ, "FLASHHOLD_REDIS_URL": redis_url, "FLASHHOLD_DATABASE_URL": database_url}
    return subprocess.run(
        [sys.executable, "-m", "flashhold", "doctor", *words], env=environ, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def safe_postgres(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Postgres with the settings of `up`; the session's own has fsync off, which doctor rightly finds."""
    directory = tmp_path_factory.mktemp("doctor")
    server = PostgresServer(directory / "postgres")
    with running(server, directory / "postgres.log"):
        yield server.url


def test_the_embedded_stores_are_safe(redis_url: str, safe_postgres: str) -> None:
    """What `up` starts has nothing to find, and doctor names both products and versions."""
    checked = check(redis_url, safe_postgres)
    assert checked.findings == []
    assert checked.versions["redis"].startswith(("Redis 7", "Valkey"))
    assert checked.versions["postgres"].startswith("Postgres ")


def test_a_planted_everysec_is_found(start_redis: Callable[..., tuple[Child, str]], safe_postgres: str) -> None:
    """The one setting that most deployments have wrong: exit 1, with a sentence that says what to set."""
    _, url = start_redis(settings={"appendfsync": "everysec"})
    said = doctor(url, safe_postgres)
    assert said.returncode == 1
    assert "appendfsync is everysec" in said.stdout
    assert "Set `appendfsync always`" in said.stdout
    report = json.loads(doctor(url, safe_postgres, "--json").stdout)
    assert {finding["setting"] for finding in report["findings"]} == {"appendfsync", "aof-load-truncated"}


def test_safe_stores_end_with_zero(one_redis_url: str, safe_postgres: str) -> None:
    """Exit status 0, and the JSON says that there is nothing."""
    said = doctor(one_redis_url, safe_postgres, "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["findings"] == []


def test_a_live_change_is_found(one_redis_url: str, safe_postgres: str, postgres: PostgresServer) -> None:
    """Settings are read from the running servers, not from files: both stores' changes are seen at once."""
    with redis.Redis.from_url(one_redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            found = {finding.setting for finding in check(one_redis_url, postgres.url).findings}
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert found == {"maxmemory-policy", "fsync"}


def test_a_database_may_be_laxer_than_its_server(one_redis_url: str, safe_postgres: str) -> None:
    """A setting of the database alone counts too."""
    with psycopg.connect(safe_postgres, autocommit=True) as connection:
        connection.execute("ALTER DATABASE flashhold SET synchronous_commit = off")
        try:
            found = {finding.setting for finding in check(one_redis_url, safe_postgres).findings}
        finally:
            connection.execute("ALTER DATABASE flashhold RESET synchronous_commit")
    assert found == {"synchronous_commit"}


@pytest.mark.parametrize("missing", ["redis", "postgres"])
def test_a_store_that_is_away_is_status_3(
    missing: str, one_redis_url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """The message says which one; with --json there is still one object on standard output."""
    redis_url = f"unix://{tmp_path}/none.sock" if missing == "redis" else one_redis_url
    database_url = f"postgresql:///x?host={tmp_path}" if missing == "postgres" else postgres.url
    said = doctor(redis_url, database_url, "--json")
    assert said.returncode == 3
    assert {"redis": "Redis", "postgres": "ledger database"}[missing] in json.loads(said.stdout)["error"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("setting", "value"),
    [("appendonly", "no"), ("no-appendfsync-on-rewrite", "yes"), ("maxmemory-policy", "volatile-ttl")],
)
def test_each_redis_setting_has_its_sentence(setting: str, value: str) -> None:
    """One finding for the one setting that differs from the safe ones."""
    assert redis_findings(_REDIS_SETTINGS, VALKEY) == []
    [finding] = redis_findings({**_REDIS_SETTINGS, setting: value}, VALKEY)
    assert (finding.setting, finding.value) == (setting, value)
    assert f"`{setting} {_REDIS_SETTINGS[setting]}`" in finding.sentence


@pytest.mark.quick
@pytest.mark.parametrize(
    ("settings", "info", "found"),
    [
        ({}, {"redis_version": "6.2.14"}, "version"),
        ({}, {**VALKEY, "role": "slave"}, "role"),
        ({}, {**VALKEY, "aof_last_write_status": "err"}, "aof_last_write_status"),
        ({"protected-mode": "no", "bind": "* -::*", "requirepass": "", "port": "6379"}, VALKEY, "protected-mode"),
    ],
)
def test_what_a_redis_must_not_be(settings: dict[str, str], info: dict[str, str], found: str) -> None:
    """Too old, a replica, unable to write, open to the network."""
    assert [finding.setting for finding in redis_findings({**_REDIS_SETTINGS, **settings}, info)] == [found]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
        ("zero_damaged_pages", "on"),
        ("ignore_checksum_failure", "on"),
        ("server_encoding", "SQL_ASCII"),
        ("default_transaction_read_only", "on"),
        ("in_recovery", "on"),
    ],
)
def test_each_postgres_setting_has_its_sentence(setting: str, value: str) -> None:
    """One finding for the one setting that differs from the safe ones."""
    assert postgres_findings(_POSTGRES_SETTINGS) == []
    assert [finding.setting for finding in postgres_findings({**_POSTGRES_SETTINGS, setting: value})] == [setting]


@pytest.mark.quick
def test_an_old_postgres_is_found() -> None:
    """Before 14 is refused in words."""
    [finding] = postgres_findings({"server_version_num": "130011", "server_version": "13.11"})
    assert finding.value == "13.11"


@pytest.mark.quick
@pytest.mark.parametrize(("skew_ms", "word"), [(3000.0, "ahead"), (-3000.0, "behind"), (100.0, None)])
def test_clocks_may_differ_a_little(skew_ms: float, word: str | None) -> None:
    """Half a second is tolerated; beyond, the sentence says which is ahead."""
    findings = clock_findings(skew_ms)
    assert bool(findings) == bool(word)
    assert word is None or f"3.0 s {word}" in findings[0].sentence
