"""Connections to the ledger database, and the wall at which the driver's errors become ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from flashhold.domain.errors import LedgerConflict, LedgerUnavailable, Misconfigured

CONNECT_TIMEOUT_S = 2  # the driver's least; a database that takes longer to say hello is not there
READ_TIMEOUT_MS = 2_000  # a page is worth this much of a reader's patience, and no more of the database's time


def _url(database_url: str) -> URL:
    try:
        url = make_url(database_url)
    except SQLAlchemyError as error:
        raise Misconfigured(
            "the database URL cannot be read; it looks like postgresql://user@host:5432/name"
        ) from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise Misconfigured(f"the ledger needs Postgres, not {url.get_backend_name()}")
    return url.set(drivername="postgresql+psycopg")


def _session(name: str, **settings: int | str) -> dict[str, object]:
    options = " ".join(f"-c {setting}={value}" for setting, value in settings.items())
    return {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": f"flashhold-{name}", "options": options}


@cache
def shared_sync(database_url: str) -> sa.Engine:
    """One pool of this process for what looks at the ledger now and then, for however many partitions: with pools of
    their own, five connections a partition would stand idle most of the time, and a database takes a hundred.
    `dispose` closes what is idle; whoever needs one later opens it anew."""
    return connect_sync(database_url, name="worker", pool_size=4, overflow_max=12)


def connect_sync(
    database_url: str,
    *,
    name: str = "tool",
    statement_timeout_ms: int = 30_000,
    pool_size: int = 1,
    overflow_max: int = 1,
) -> sa.Engine:
    """A pool of at most two connections, if no more are asked for; nothing is opened yet.

    `synchronous_commit` is set here, for every session, so that a server's laxer default cannot make the ledger forget
    what it has confirmed. A writer whose process was frozen in the middle of a transaction is ended by the
    server after 10 s, so that it cannot hold the cursor's row for ever.
    """
    session = _session(
        name,
        synchronous_commit="on",
        statement_timeout=statement_timeout_ms,
        idle_in_transaction_session_timeout=10_000,
        lock_timeout=min(statement_timeout_ms, 5_000),
    )
    return sa.create_engine(
        _url(database_url),
        pool_size=pool_size,
        max_overflow=overflow_max,
        pool_timeout=5,
        connect_args={**session, "tcp_user_timeout": 10_000},
    )


def connect_async(database_url: str, *, pool_size: int = 4) -> AsyncEngine:
    """A pool for readers; nothing is opened yet. `pool_size`: pages that are read at the same time.

    Every read of theirs is of a few rows by key, its tables joined in the order in which they are written. A planner
    without statistics yet (a ledger that was just filled) found orders of its own: 100 s instead of 10 ms for a page
    of 1000 out of 150,000. So it is held to the order and to the indexes; and, because a page's list of places was then
    still joined by the partition alone (7.5 s out of 79,000), to plans that do not look at the list: 5 ms.
    """
    session = _session(
        "reader",
        statement_timeout=READ_TIMEOUT_MS,
        default_transaction_read_only="on",
        join_collapse_limit=1,
        plan_cache_mode="force_generic_plan",
        enable_seqscan="off",
        enable_hashjoin="off",
        enable_mergejoin="off",
    )
    return create_async_engine(
        _url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=READ_TIMEOUT_MS / 1000,
        pool_pre_ping=True,
        connect_args=session,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into `LedgerUnavailable`, or `LedgerConflict` where the rows themselves are refused."""
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, psycopg.IntegrityError | psycopg.DataError):
            where = cause.diag.context or cause.diag.constraint_name or ""
            raise LedgerConflict(
                f"the ledger refuses the rows: {cause.diag.message_primary or cause} {where}".strip()
            ) from error
        raise LedgerUnavailable(f"the ledger database failed: {str(cause).strip() or type(cause).__name__}") from error
