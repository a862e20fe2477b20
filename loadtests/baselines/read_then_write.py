"""Read the stock, decide in the application, write it back: the first version that most teams ship.

Two requests that read the same number both sell the same units. The idempotency key is looked up first and stored
afterwards, which loses the race with a double click in the same way.
"""

from datetime import datetime

from psycopg.rows import DictRow

from loadtests.baselines.shop import Connection, create_app, expire_at_once, hold_of_key, insert_hold


async def take(connection: Connection, key: str, sku: str, quantity: int, deadline: datetime) -> DictRow | None:
    if known := await hold_of_key(connection, key):
        return known
    answer = await connection.execute("select available from stock where sku = %s", (sku,))
    stock = await answer.fetchone()
    if stock is None or stock["available"] < quantity:
        return None
    await connection.execute("update stock set available = %s where sku = %s", (stock["available"] - quantity, sku))
    return await insert_hold(connection, key, sku, quantity, deadline)


app = create_app(take, expire_at_once)
