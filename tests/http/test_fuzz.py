"""The door fuzzed from its own OpenAPI document, against real processes: nothing that can be sent makes a 5xx."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from flashhold.ledger.api_keys import new_key, register
from tests.http.conftest import serving, valkey

OPERATIONS = (
    "hold", "commit", "release", "extend", "amend", "move", "put_policy", "patch_policy",
    "read_hold", "read_stock", "availability", "list_holds", "list_entries",
)  # fmt: skip

_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_client = httpx.Client()
EXAMPLES = 30
"""About two seconds an operation and mode."""


@pytest.fixture(scope="module")
def served(redis_servers: Callable[[str], str], module_database_url: str) -> Iterator[tuple[str, str]]:
    """URL of a served API and an admin's key."""
    key = new_key()
    register(module_database_url, key, ["admin"])
    environ = {"FLASHHOLD_REDIS_URL": valkey(redis_servers), "FLASHHOLD_DATABASE_URL": module_database_url}
    with serving(**environ) as (_, url):
        yield url, key


@pytest.fixture(scope="module")
def document(served: tuple[str, str]) -> OpenApiSchema:
    """The document as the API serves it."""
    return schemathesis.openapi.from_url(f"{served[0]}/openapi.json")


def test_the_document_has_every_operation(document: OpenApiSchema) -> None:
    """The fuzzed list below is the whole API, the hot verbs included."""
    found = [result.ok().definition.raw["operationId"] for result in document.get_all_operations()]
    assert sorted(found) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_fuzzed(document: OpenApiSchema, served: tuple[str, str], name: str, mode: GenerationMode) -> None:
    """Whatever is sent, right or wrong, the answer is one that the document describes, and never a 5xx."""
    url, key = served

    statuses: Counter[int] = Counter()

    @given(case=document.find_operation_by_id(name).as_strategy(mode), known=st.booleans())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: schemathesis.Case, known: bool) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        if known:
            speak_of_what_is_there(case, url, headers)
        response = case.call(base_url=url, headers=headers)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=_CHECKS)

    holds()
    if mode == GenerationMode.POSITIVE:
        assert set(statuses) & {200, 201}, f"nothing was ever accepted: {statuses}"


def speak_of_what_is_there(case: schemathesis.Case, url: str, headers: dict[str, str]) -> None:
    """Turn a made-up case to a SKU with stock, a live hold and a fresh key, so that more is decided than `unknown`."""

    def post(path: str, body: dict[str, Any]) -> Any:
        fresh = {**headers, "Idempotency-Key": uuid.uuid4().hex}
        return _client.post(f"{url}/v1/{path}", json=body, headers=fresh).json()

    post("movements", {"type": "receipt", "sku": "fuzz", "quantity": 1_000_000_000})
    headers["Idempotency-Key"] = uuid.uuid4().hex
    path = case.path_parameters or {}
    if "sku" in path:
        path["sku"] = "fuzz"
    if "hold" in path:
        path["hold"] = post("holds", {"lines": [{"sku": "fuzz", "quantity": 1_000_000}]})["id"]
    body = case.body if isinstance(case.body, dict) else {}
    for line in body["lines"] if isinstance(body.get("lines"), list) else []:
        if isinstance(line, dict):
            line |= {"sku": "fuzz", "pool": None, "quantity": 1}
    if "type" in body:
        to_pool = "eu" if body["type"] == "transfer" else None
        body |= {"sku": "fuzz", "pool": None, "to_pool": to_pool, "quantity": 1, "reason": "count", "hold": None}
    if "ttl_seconds" in body and case.operation.definition.raw["operationId"] == "hold":
        body["ttl_seconds"] = 60
