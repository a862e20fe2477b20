"""Lock the SKU's row, then read, decide and write: correct, and every buyer queues behind the one who holds the lock.

The key is looked up under the lock, and a unique index stands behind it.
"""

from datetime import datetime

from psycopg.rows import DictRow

from loadtests.baselines.shop import Connection, create_app, expire_at_once, hold_of_key, insert_hold


async def take(connection: Connection, key: str, sku: str, quantity: int, deadline: datetime) -> DictRow | None:
    answer = await connection.execute("select available from stock where sku = %s for update", (sku,))
    stock = await answer.fetchone()
    if known := await hold_of_key(connection, key):
        return known
    if stock is None or stock["available"] < quantity:
        return None
    await connection.execute("update stock set available = available - %s where sku = %s", (quantity, sku))
    return await insert_hold(connection, key, sku, quantity, deadline)


app = create_app(take, expire_at_once, "create unique index one_hold_a_key on holds (idempotency_key);")
