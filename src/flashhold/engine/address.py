"""Where the store is: a server by its address, or the one that Sentinel says is the primary now.

    redis://[user:password@]host:port/db   rediss://…   unix:///path?db=0
    redis+sentinel://[user:password@]host:port,host:port,…/name[/db]      user and password are those of the server

With Sentinel the question is asked anew at every connection, so that a reconnection finds the promoted replica.
"""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import redis
from redis.sentinel import Sentinel

from flashhold.domain.errors import Misconfigured

SENTINEL_SCHEME = "redis+sentinel"
SENTINEL_PORT = 26_379


class Watched(NamedTuple):
    """A primary that Sentinels watch under a name."""

    sentinels: tuple[tuple[str, int], ...]
    name: str
    db: int
    username: str | None
    password: str | None

    def url_of(self, host: str, port: int) -> str:
        """The URL of one of its servers, without the credentials."""
        return f"redis://{f'[{host}]' if ':' in host else host}:{port}/{self.db}"


def watched(url: str) -> Watched | None:
    """What a Sentinel URL names; None for any other URL. Raises Misconfigured where it lacks a host or the name."""
    parts = urlsplit(url)
    if parts.scheme != SENTINEL_SCHEME:
        return None
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    name, _, db = parts.path.strip("/").partition("/")
    try:
        sentinels = tuple(_host_and_port(text) for text in hosts.split(",") if text)
        number = int(db or 0)
    except ValueError:
        raise Misconfigured(
            f"a port or database number of the Sentinel URL makes no sense: {hosts}{parts.path}"
        ) from None
    if not sentinels or not name:
        raise Misconfigured("a Sentinel URL has the form redis+sentinel://host:port,host:port/name")
    return Watched(sentinels, name, number, unquote(username) or None, unquote(password) or None)


def _host_and_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest.removeprefix(":") or SENTINEL_PORT)
    host, _, port = text.partition(":")
    return host, int(port or SENTINEL_PORT)


def blocking_client(
    url: str, partition: str, *, timeout_s: float = 5.0, decode_responses: bool = False
) -> "redis.Redis":
    """A client of redis-py for what is not hot, without its retries. With Sentinel it follows the primary, on a cluster
    the primary that serves the partition; it can be asked about that partition's keys only."""
    told = {"socket_timeout": timeout_s, "socket_connect_timeout": min(timeout_s, 2.0), "retry": None}
    primary = watched(url)
    if primary is None:
        return redis.Redis.from_url(url, decode_responses=decode_responses, **told)
    sentinel = Sentinel(list(primary.sentinels), sentinel_kwargs=told)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    client: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]  # the same
        primary.name, db=primary.db, username=primary.username, password=primary.password,
        decode_responses=decode_responses, **told,
    )  # fmt: skip
    return client
