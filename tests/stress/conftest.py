"""The stress tests' API is that of the HTTP tests."""

from tests.http.conftest import module_database_url as module_database_url  # noqa: PLC0414  # for pytest to find
