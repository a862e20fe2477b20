"""The stores that every other test stands on."""

import psycopg
import redis


def test_a_redis_is_empty_at_the_start(redis_url: str) -> None:
    """Nothing of the test before is left, and writes are fsynced before they are answered."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.config_get("append*")["appendfsync"] == "always"
        client.set("left", "behind")


def test_a_redis_is_empty_at_the_start_again(redis_url: str) -> None:
    """The same once more, after a test that left something."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_database_is_fresh(database_url: str, empty_database_url: str) -> None:
    """Two databases of one test have nothing in common."""
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE only_here ()")
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
