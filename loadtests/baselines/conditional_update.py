"""One `UPDATE … WHERE available >= n`: correct, and the row is locked as briefly as Postgres can.

The hold is inserted first, under its unique key, so that a double click waits there and not on the hot row, and the
hot row is locked last. A refused buyer only reads: the update's own condition finds no row and locks none.
"""

from datetime import datetime

from psycopg.rows import DictRow

from loadtests.baselines.shop import Connection, create_app, expire_at_once, hold_of_key, insert_hold


async def take(connection: Connection, key: str, sku: str, quantity: int, deadline: datetime) -> DictRow | None:
    hold = await insert_hold(connection, key, sku, quantity, deadline)
    if hold is None:
        return await hold_of_key(connection, key)
    taken = await connection.execute(
        "update stock set available = available - %s where sku = %s and available >= %s", (quantity, sku, quantity)
    )
    if taken.rowcount == 1:
        return hold
    await connection.rollback()
    return None


app = create_app(take, expire_at_once, "create unique index one_hold_a_key on holds (idempotency_key);")
