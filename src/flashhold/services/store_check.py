"""Whether the two stores are set so that an acknowledged hold cannot be lost: one finding for each setting that is not.

The judging is pure (`redis_findings`, `postgres_findings`, `clock_findings`), so that readiness can judge what it has
read itself; `check` reads both stores and judges. Every sentence says what would happen and what to do.
"""

import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg
import redis

from flashhold.domain.errors import LedgerUnavailable, Misconfigured, StoreUnavailable
from flashhold.engine.address import blocking_client, cluster_of
from flashhold.engine.keys import FIRST_PARTITION
from flashhold.engine.topology import Address
from flashhold.ledger.connect import translated

CLOCK_SKEW_MAX_MS = 500
"""Redis' clock ends holds, Postgres' judges leases and what the ledger's pages call expired; half a second between them
is more than any synchronised pair of machines shows and less than any deadline is worth."""

REDIS_VERSION_MIN = (7, 0)
POSTGRES_VERSION_MIN = 140_000

_TIMEOUT_S = 5


class Finding(NamedTuple):
    """One unsafe setting: where, what it is, and a sentence with what would happen and what to do."""

    store: str
    setting: str
    value: str
    sentence: str


class Checked(NamedTuple):
    """What a check saw. `versions`: each store in words."""

    versions: dict[str, str]
    findings: list[Finding]


class _Rule(NamedTuple):
    setting: str
    safe: frozenset[str]
    sentence: str


_REDIS_RULES = (
    _Rule(
        "appendonly",
        frozenset({"yes"}),
        "Redis keeps nothing across a restart: every hold and all stock would be gone. "
        "Set `appendonly yes` (CONFIG SET appendonly yes, and in redis.conf).",
    ),
    _Rule(
        "appendfsync",
        frozenset({"always"}),
        "Holds are acknowledged before they are on the disk, so a crash takes back up to a second of them or more. "
        "Set `appendfsync always`.",
    ),
    _Rule(
        "no-appendfsync-on-rewrite",
        frozenset({"no"}),
        "While the append-only file is rewritten nothing is fsynced, and a crash then takes back acknowledged holds. "
        "Set `no-appendfsync-on-rewrite no`.",
    ),
    _Rule(
        "maxmemory-policy",
        frozenset({"noeviction"}),
        "When memory runs out Redis would delete stock and holds instead of refusing new ones. "
        "Set `maxmemory-policy noeviction`.",
    ),
)

_CLUSTER_RULES = (
    _Rule(
        "cluster-require-full-coverage",
        frozenset({"no"}),
        "The loss of one primary would close the partitions of all the others until it is replaced. "
        "Set `cluster-require-full-coverage no`.",
    ),
)

_POSTGRES_RULES = (
    _Rule(
        "fsync",
        frozenset({"on"}),
        "A power cut can leave the ledger unreadable. Set `fsync = on`.",
    ),
    _Rule(
        "full_page_writes",
        frozenset({"on"}),
        "A page half written in a power cut can't be repaired, and the ledger with it. Set `full_page_writes = on`.",
    ),
    _Rule(
        "synchronous_commit",
        frozenset({"on", "local", "remote_write", "remote_apply"}),
        "Postgres confirms entries before they are on the disk; sessions that don't set it themselves lose them in a "
        "crash. Set `synchronous_commit = on`.",
    ),
    _Rule(
        "zero_damaged_pages",
        frozenset({"off"}),
        "Damaged pages of the ledger would be emptied without an error. Set `zero_damaged_pages = off`.",
    ),
    _Rule(
        "ignore_checksum_failure",
        frozenset({"off"}),
        "Damaged pages of the ledger would be read as if they were sound. Set `ignore_checksum_failure = off`.",
    ),
    _Rule(
        "server_encoding",
        frozenset({"UTF8"}),
        "SKUs and buyers outside this encoding can't be stored, and the write-behind would stop at the first. "
        "Create the database with `ENCODING 'UTF8'`.",
    ),
    _Rule(
        "default_transaction_read_only",
        frozenset({"off"}),
        "Nothing can be written to the ledger, and the journal in Redis grows until memory ends. "
        "Set `default_transaction_read_only = off`.",
    ),
    _Rule(
        "in_recovery",
        frozenset({"off"}),
        "This is a stand-by server: nothing can be written to it. Point FLASHHOLD_DATABASE_URL at the primary.",
    ),
)


def redis_findings(settings: Mapping[str, str], info: Mapping[str, Any]) -> list[Finding]:
    """Judge a Redis-compatible server by its `CONFIG GET *` and `INFO`; a cluster's node as a node."""
    in_cluster = bool(info.get("cluster_enabled"))
    found = _cluster_findings(settings, info) if in_cluster else []
    found += _broken(_REDIS_RULES, "redis", settings)
    product, version = redis_version(info)
    if version < REDIS_VERSION_MIN:
        found.append(
            _redis("version", _dotted(version), f"{product} before 7.0 can't run the scripts. Install 7.0 or later.")
        )
    if settings.get("aof-load-truncated") == "yes" and settings.get("appendfsync") != "always":
        sentence = (
            "After a crash Redis leaves out the torn end of its file without a word, and without `appendfsync always` "
            "acknowledged holds can be in it. Set `appendfsync always`, or `aof-load-truncated no` to be told instead."
        )
        found.append(_redis("aof-load-truncated", "yes", sentence))
    if info.get("aof_last_write_status", "ok") != "ok":
        sentence = "Redis can't write its append-only file. Look for a full or broken disk."
        found.append(_redis("aof_last_write_status", str(info["aof_last_write_status"]), sentence))
    if info.get("role", "master") != "master" and not in_cluster:
        sentence = "This is a replica: it can't be written to. Point FLASHHOLD_REDIS_URL at the primary."
        found.append(_redis("role", str(info["role"]), sentence))
    if settings.get("protected-mode") == "no" and not settings.get("requirepass") and _listens_widely(settings):
        sentence = (
            "Anybody who reaches this server over the network can change stock, without a password. "
            "Set `requirepass`, or bind it to 127.0.0.1, or set `protected-mode yes`."
        )
        found.append(_redis("protected-mode", "no", sentence))
    return found


def _cluster_findings(settings: Mapping[str, str], info: Mapping[str, Any]) -> list[Finding]:
    found = _broken(_CLUSTER_RULES, "redis", settings)
    if info.get("role") == "master" and info.get("connected_slaves") == 0:
        sentence = (
            "This primary has no replica: what it loses is lost, and level `replica` can acknowledge nothing. "
            "Give it one that follows (CLUSTER REPLICATE)."
        )
        found.append(_redis("connected_slaves", "0", sentence))
    return found


def postgres_findings(settings: Mapping[str, str]) -> list[Finding]:
    """Judge a Postgres database by its settings (`pg_settings`, and `in_recovery` as `on` or `off`)."""
    found = _broken(_POSTGRES_RULES, "postgres", settings)
    if int(settings.get("server_version_num", POSTGRES_VERSION_MIN)) < POSTGRES_VERSION_MIN:
        sentence = "Postgres before 14 is not supported. Upgrade to 14 or later."
        found.append(Finding("postgres", "version", settings["server_version"], sentence))
    return found


def clock_findings(skew_ms: float) -> list[Finding]:
    """Judge how far Postgres' clock is ahead of Redis' (negative: behind)."""
    if abs(skew_ms) <= CLOCK_SKEW_MAX_MS:
        return []
    sentence = (
        f"Postgres' clock is {abs(skew_ms) / 1000:.1f} s {'ahead of' if skew_ms > 0 else 'behind'} Redis', so that "
        "pages of the ledger call holds expired too early or too late. Synchronise the machines' clocks (chrony, NTP)."
    )
    return [Finding("clocks", "skew_ms", f"{skew_ms:.0f}", sentence)]


def redis_version(info: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """The product and its own version: Valkey also reports the version of the Redis that it is compatible with."""
    product = "Valkey" if "valkey_version" in info else "Redis"
    shown = str(info.get("valkey_version") or info.get("redis_version", "0"))
    return product, tuple(int(digits) for digits in re.findall(r"\d+", shown))


def check(redis_url: str, database_url: str) -> Checked:
    """Read both stores and judge them, of a cluster every node: any replica may be the next primary. Raises
    StoreUnavailable, LedgerUnavailable, Misconfigured (unreadable URL)."""
    found: list[Finding] = []
    products: list[str] = []
    shown, postgres_ahead_ms = _read_postgres(database_url)
    for where, client in _servers(redis_url).items():
        try:
            settings, info, redis_ahead_ms = _read_redis(client)
        except StoreUnavailable:
            if not where:
                raise
            found.append(Finding(f"redis {where}", "node", "away", _AWAY))
            continue
        product, version = redis_version(info)
        products.append(f"{product} {_dotted(version)}")
        mine = redis_findings(settings, info) + clock_findings(postgres_ahead_ms - redis_ahead_ms)
        if not settings:
            mine.append(_redis("CONFIG", "refused", _REFUSED))
        found += [one._replace(store=f"redis {where}") for one in mine] if where else mine
    return Checked(
        {"redis": ", ".join(sorted(set(products))), "postgres": f"Postgres {shown['server_version']}"},
        found + postgres_findings(shown),
    )


_REFUSED = "The server refuses CONFIG GET, so nothing about its durability could be checked. Allow it to this user."
_AWAY = "This node of the cluster doesn't answer: its partitions have lost a copy. Start it, or replace it."


def _servers(url: str) -> dict[str, "redis.Redis"]:
    """A client of the server, or of each node of a cluster by its address. Raises StoreUnavailable, Misconfigured."""
    try:
        cluster = cluster_of(url, FIRST_PARTITION)
        if cluster is None:
            return {"": blocking_client(url, FIRST_PARTITION, timeout_s=_TIMEOUT_S, decode_responses=True)}
        return {
            f"{host}:{port}": blocking_client(
                url, FIRST_PARTITION, timeout_s=_TIMEOUT_S, decode_responses=True, node=Address(host, port)
            )
            for host, port in cluster.all_now()
        }
    except ValueError as error:
        raise Misconfigured(f"the Redis URL can't be read: {error}") from error
    except redis.RedisError as error:
        raise StoreUnavailable(f"Redis can't be reached: {error}") from error


def _broken(rules: tuple[_Rule, ...], store: str, settings: Mapping[str, str]) -> list[Finding]:
    """A setting that the server doesn't have is not judged."""
    return [
        Finding(store, rule.setting, settings[rule.setting], rule.sentence)
        for rule in rules
        if rule.setting in settings and settings[rule.setting] not in rule.safe
    ]


def _redis(setting: str, value: str, sentence: str) -> Finding:
    return Finding("redis", setting, value, sentence)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _listens_widely(settings: Mapping[str, str]) -> bool:
    if settings.get("port") == "0":
        return False
    return any(
        address.lstrip("-") not in ("127.0.0.1", "::1", "localhost") for address in settings.get("bind", "*").split()
    )


def _read_redis(client: "redis.Redis") -> tuple[dict[str, str], dict[str, Any], float]:
    """Its settings (none if it doesn't tell), its INFO, and how far its clock is ahead of ours in ms."""
    try:
        info: dict[str, Any] = client.info()
        before = time.time()
        seconds, microseconds = client.time()
        ahead_ms = (seconds + microseconds / 1e6 - (before + time.time()) / 2) * 1000
        try:
            settings = {str(name): str(value) for name, value in client.config_get("*").items()}
        except redis.ResponseError:  # managed servers rename CONFIG or refuse it
            settings = {}
    except redis.RedisError as error:
        raise StoreUnavailable(f"Redis can't be reached: {error}") from error
    finally:
        client.close()
    return settings, info, ahead_ms


def _read_postgres(url: str) -> tuple[dict[str, str], float]:
    """Its settings as a plain session of this database has them, and how far its clock is ahead of ours in ms."""
    plain = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
    with translated(), psycopg.connect(plain, connect_timeout=_TIMEOUT_S, autocommit=True) as connection:
        rows = connection.execute("SELECT name, setting FROM pg_settings").fetchall()
        recovery = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        before = time.time()
        clock = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        if recovery is None or clock is None:
            raise LedgerUnavailable("the ledger database gave no answer to a SELECT")
        ahead_ms = (clock[0] - (before + time.time()) / 2) * 1000
    return {**dict(rows), "in_recovery": "on" if recovery[0] else "off"}, ahead_ms
