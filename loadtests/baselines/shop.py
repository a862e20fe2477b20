"""What the three baselines share: tables, bodies, the routes. Each adds its own way to take units.

A pool of 32 connections and one transaction a request, `synchronous_commit` on: an ordinary, careful set-up.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field

SCHEMA = """
create table stock (sku text primary key, available bigint not null);
create table holds (
    id text primary key, idempotency_key text not null, sku text not null, quantity bigint not null,
    state text not null default 'held', expires_at timestamptz not null, reference text
);
create index holds_by_key on holds (idempotency_key);
create index holds_by_deadline on holds (expires_at) where state = 'held';
"""
EXPIRE_SECONDS = 0.5

Connection = AsyncConnection[DictRow]
Take = Callable[[Connection, str, str, int, datetime], Awaitable[DictRow | None]]
"""(connection in a transaction, key, sku, quantity, deadline) → the hold's row, or None: not enough."""
Expire = Callable[[Connection], Awaitable[None]]


class Line(BaseModel):
    sku: str = Field(min_length=1, max_length=128)
    quantity: int = Field(ge=1, le=1_000_000_000)


class HoldBody(BaseModel):
    lines: list[Line] = Field(min_length=1, max_length=100)
    buyer: str | None = None
    ttl_seconds: int = Field(default=600, ge=1, le=86_400)


class CommitBody(BaseModel):
    reference: str | None = None


async def insert_hold(connection: Connection, key: str, sku: str, quantity: int, deadline: datetime) -> DictRow | None:
    """The row of a new hold; None where the key has one already, if the schema keeps keys unique."""
    answer = await connection.execute(
        "insert into holds (id, idempotency_key, sku, quantity, expires_at) values (%s, %s, %s, %s, %s)"
        " on conflict do nothing returning *",
        (f"hld_{uuid.uuid4().hex}", key, sku, quantity, deadline),
    )
    return await answer.fetchone()


async def hold_of_key(connection: Connection, key: str) -> DictRow | None:
    answer = await connection.execute("select * from holds where idempotency_key = %s", (key,))
    return await answer.fetchone()


async def expire_at_once(connection: Connection) -> None:
    """One statement that ends overdue holds and gives their units back."""
    await connection.execute(
        "with over as (update holds set state = 'expired' where state = 'held' and expires_at <= now()"
        "  returning sku, quantity),"
        " freed as (select sku, sum(quantity) as quantity from over group by sku)"
        " update stock set available = available + freed.quantity from freed where stock.sku = freed.sku"
    )


def create_app(take: Take, expire: Expire, extra_schema: str = "") -> FastAPI:
    """A shop that takes units by `take`; a background task calls `expire` twice a second."""
    pool = AsyncConnectionPool(
        os.environ["BASELINE_DATABASE_URL"],
        min_size=4,
        max_size=32,
        timeout=30,
        open=False,
        connection_class=AsyncConnection[DictRow],
        kwargs={"row_factory": dict_row},
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pool:
            async with pool.connection() as connection:
                await connection.execute(SCHEMA + extra_schema)
                await connection.execute(
                    "insert into stock values (%s, %s)",
                    (os.environ["BASELINE_SKU"], int(os.environ["BASELINE_UNITS"])),
                )
            janitor = asyncio.create_task(_expire_for_ever(pool, expire))
            yield
            janitor.cancel()
            with suppress(asyncio.CancelledError):
                await janitor

    app = FastAPI(lifespan=lifespan)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/holds", status_code=201)
    async def hold(body: HoldBody, idempotency_key: str = Header()) -> JSONResponse:
        line = body.lines[0]  # the drop's carts have one line
        deadline = datetime.now(UTC) + timedelta(seconds=body.ttl_seconds)
        async with pool.connection() as connection:
            row = await take(connection, idempotency_key, line.sku, line.quantity, deadline)
        if row is None:
            return JSONResponse({"code": "insufficient-stock"}, 409)
        return JSONResponse(_told(row), 201)

    @app.post("/v1/holds/{hold_id}/commit")
    async def commit(hold_id: str, body: CommitBody) -> JSONResponse:
        async with pool.connection() as connection:
            answer = await connection.execute(
                "update holds set state = 'committed', reference = %s where id = %s and"
                " ((state = 'held' and expires_at > now()) or (state = 'committed' and reference = %s)) returning *",
                (body.reference, hold_id, body.reference),
            )
            row = await answer.fetchone()
        return JSONResponse(_told(row), 200) if row else JSONResponse({"code": "hold-expired"}, 409)

    @app.post("/v1/holds/{hold_id}/release")
    async def release(hold_id: str) -> JSONResponse:
        async with pool.connection() as connection:
            answer = await connection.execute(
                "with gone as (update holds set state = 'released' where id = %s and state = 'held' returning *),"
                " freed as (update stock set available = available + gone.quantity from gone"
                "  where stock.sku = gone.sku)"
                " select * from gone",
                (hold_id,),
            )
            row = await answer.fetchone()
        return JSONResponse(_told(row), 200) if row else JSONResponse({"code": "hold-expired"}, 409)

    return app


async def _expire_for_ever(pool: AsyncConnectionPool[Connection], expire: Expire) -> None:
    while True:
        await asyncio.sleep(EXPIRE_SECONDS)
        async with pool.connection() as connection:
            await expire(connection)


def _told(row: DictRow) -> dict[str, Any]:
    return {
        "id": row["id"],
        "state": row["state"],
        "expires_at": row["expires_at"].astimezone(UTC).isoformat(timespec="milliseconds"),
    }
