"""Where the store is: a server by its address, or the one that Sentinel or the nodes of a cluster call the primary now.

    redis://[user:password@]host:port/db   rediss://…   unix:///path?db=0
    redis+sentinel://[user:password@]host:port,host:port,…/name[/db]      user and password are those of the server
    redis+cluster://[user:password@]host:port,host:port,…                 some of the nodes; they know the others

With these two the question is asked anew at every connection, so that a reconnection finds the promoted replica.
"""

from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import redis
from redis.sentinel import Sentinel

from flashhold.domain.errors import Misconfigured
from flashhold.engine.topology import Address, Cluster, Login, SlotConnection

SENTINEL_SCHEME = "redis+sentinel"
SENTINEL_PORT = 26_379
CLUSTER_SCHEME = "redis+cluster"
CLUSTER_PORT = 6_379


class Watched(NamedTuple):
    """A primary that Sentinels watch under a name."""

    sentinels: tuple[Address, ...]
    name: str
    db: int
    login: Login


def watched(url: str) -> Watched | None:
    """What a Sentinel URL names; None for any other URL. Raises Misconfigured where it lacks a host or the name."""
    parts = urlsplit(url)
    if parts.scheme != SENTINEL_SCHEME:
        return None
    login, hosts = _login_and_hosts(parts.netloc)
    name, _, db = parts.path.strip("/").partition("/")
    try:
        sentinels = _addresses(hosts, SENTINEL_PORT)
        number = int(db or 0)
    except ValueError:
        raise Misconfigured(
            f"a port or database number of the Sentinel URL makes no sense: {hosts}{parts.path}"
        ) from None
    if not sentinels or not name:
        raise Misconfigured("a Sentinel URL has the form redis+sentinel://host:port,host:port/name")
    return Watched(sentinels, name, number, login)


def cluster_of(url: str, partition: str) -> Cluster | None:
    """The partition's place in the cluster that the URL names; None for any other URL. Raises Misconfigured where it
    lacks a host, or has what a cluster does not."""
    parts = urlsplit(url)
    if parts.scheme != CLUSTER_SCHEME:
        return None
    login, hosts = _login_and_hosts(parts.netloc)
    try:
        seeds = _addresses(hosts, CLUSTER_PORT)
    except ValueError:
        raise Misconfigured(f"a port of the cluster URL makes no sense: {hosts}") from None
    if not seeds or parts.path.strip("/") or parts.query:
        raise Misconfigured(
            "a cluster URL has the form redis+cluster://host:port,host:port, without a database: a cluster has only one"
        )
    return Cluster(seeds, login, partition)


def _login_and_hosts(netloc: str) -> tuple[Login, str]:
    credentials, _, hosts = netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    return Login(unquote(username) or None, unquote(password) or None), hosts


def _addresses(hosts: str, port: int) -> tuple[Address, ...]:
    """Raises ValueError for a port that is no number."""
    return tuple(_address(text, port) for text in hosts.split(",") if text)


def _address(text: str, port: int) -> Address:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return Address(host, int(rest.removeprefix(":") or port))
    host, _, given = text.partition(":")
    return Address(host, int(given or port))


def blocking_client(
    url: str,
    partition: str,
    *,
    timeout_s: float = 5.0,
    decode_responses: bool = False,
    node: Address | None = None,
) -> "redis.Redis":
    """A client of redis-py for what is not hot, without its retries. With Sentinel it follows the primary, on a cluster
    the primary that serves the partition; it can be asked about that partition's keys only. `node`: of a cluster that
    very node, whatever it serves."""
    told: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": min(timeout_s, 2.0), "retry": None}
    cluster = cluster_of(url, partition)
    if cluster is not None and node is not None:
        login = cluster.login
        return redis.Redis(
            host=node.host, port=node.port, username=login.username, password=login.password,
            decode_responses=decode_responses, **told,
        )  # fmt: skip
    if cluster is not None:
        pool = redis.ConnectionPool(
            connection_class=SlotConnection, cluster=cluster, decode_responses=decode_responses, **told
        )
        return redis.Redis.from_pool(pool)
    primary = watched(url)
    if primary is None:
        return redis.Redis.from_url(url, decode_responses=decode_responses, **told)
    sentinel = Sentinel(list(primary.sentinels), sentinel_kwargs=told)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    client: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]  # the same
        primary.name, db=primary.db, username=primary.login.username, password=primary.login.password,
        decode_responses=decode_responses, **told,
    )  # fmt: skip
    return client
