"""The usual design, written with care: FastAPI, pydantic, a redis-py connection pool, one EVALSHA a request.

It does what such services do: an idempotency record, the check and the decrement in one script, the hold as a hash,
its deadline in a sorted set. It has no journal, no ledger, no hash chain. The blocking pool has a connection for each
of the 64 clients, so that none of them waits for one.
"""

import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse
from redis.asyncio import BlockingConnectionPool, Redis

from loadtests.bench.bodies import HoldBody

_HOLD = """
local known = redis.call('GET', KEYS[3])
if known then return {2, known} end
local quantity = tonumber(ARGV[2])
local stock = tonumber(redis.call('GET', KEYS[1]) or '0')
if stock < quantity then return {0, stock} end
redis.call('DECRBY', KEYS[1], quantity)
redis.call('HSET', KEYS[2], 'sku', ARGV[3], 'quantity', ARGV[2], 'buyer', ARGV[4], 'state', 'held', 'expires', ARGV[5])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[1])
redis.call('SET', KEYS[3], ARGV[1], 'EX', 86400)
return {1, ARGV[1]}
"""

redis = Redis(
    connection_pool=BlockingConnectionPool.from_url(os.environ["USUAL_REDIS_URL"], max_connections=64, timeout=10)
)
hold_script = redis.register_script(_HOLD)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await redis.set(f"stock:{os.environ['USUAL_SKU']}", os.environ["USUAL_UNITS"])
    yield
    await redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/holds")
async def hold(body: HoldBody, idempotency_key: str = Header(min_length=1, max_length=255)) -> JSONResponse:
    line = body.lines[0]  # the bench's carts have one line
    hold_id = f"hld_{uuid.uuid4().hex}"
    now = time.time()
    expires = now + (body.ttl_seconds or 600)
    decided, value = await hold_script(
        keys=[f"stock:{line.sku}", f"hold:{hold_id}", f"key:{idempotency_key}", "deadlines"],
        args=[hold_id, line.quantity, line.sku, body.buyer or "", int(expires * 1000)],
    )
    if decided == 0:
        return JSONResponse({"code": "insufficient-stock", "sellable": value}, 409)
    return JSONResponse(_told(value.decode(), body, now, expires), 201, {"Idempotency-Replayed": str(decided == 2)})


def _told(hold_id: str, body: HoldBody, now: float, expires: float) -> dict[str, Any]:
    return {
        "id": hold_id,
        "state": "held",
        "lines": [line.model_dump() for line in body.lines],
        "buyer": body.buyer,
        "created_at": _instant(now),
        "expires_at": _instant(expires),
    }


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
