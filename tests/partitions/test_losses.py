"""A partition that is lost, others that go on, and processes that do not agree on how many there are."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import redis

from flashhold import Engine, EngineOptions
from flashhold.domain.errors import Misconfigured
from flashhold.domain.places import place_of
from flashhold.engine.keys import partition_keys
from tests.http.conftest import Api, running_api
from tests.partitions.conftest import NAMES, PARTITIONS, audits, ledger_of, skus_by_place, until, worker_process


def lose(url: str, partition: str) -> None:
    """All that the server has of one partition."""
    with redis.Redis.from_url(url) as client:
        client.delete(*partition_keys(partition))


def flashhold(api: Api, *words: str) -> tuple[int, Any]:
    """Run a command as an operator would who knows the stores and nothing else: its exit status, and its JSON."""
    urls = {"FLASHHOLD_REDIS_URL": api.settings.redis_url, "FLASHHOLD_DATABASE_URL": api.settings.database_url}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flashhold", *words], env={**os.environ, **urls}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if "--json" in words else done.stdout


async def trade(api: Api, sku: str) -> dict[str, Any]:
    """Five received, one of them held."""
    receipt = {"type": "receipt", "sku": sku, "quantity": 5}
    (await api.post("/v1/movements", receipt, key="new")).raise_for_status()
    return await api.held(sku)


async def test_one_partition_is_lost_and_comes_back_while_the_others_sell(
    one_redis_url: str, database_url: str
) -> None:
    """Its SKUs are answered 503 until a worker has rebuilt it, also those that went elsewhere; nobody else notices."""
    skus = {place: some[0] for place, some in skus_by_place().items()}
    guest = next(key for key in map(str, range(99)) if place_of(key, NAMES) == "p01")
    async with running_api(one_redis_url, database_url, partitions=PARTITIONS, readiness_refresh_ms=100) as api:
        with worker_process(one_redis_url, database_url):
            held = {place: await trade(api, sku) for place, sku in skus.items()}
            (moved,) = skus_by_place()["p03"]
            (await api.client.put(f"/v1/skus/{moved}", json={"partition_key": guest})).raise_for_status()

            async def written() -> bool:
                return len(await ledger_of(api)) == 14

            await until(written, "all entries in the ledger")
        lose(one_redis_url, "p03")

        async def noticed() -> bool:
            return (await api.client.get("/readyz")).status_code == 503

        await until(noticed, "the loss on /readyz")
        said = (await api.client.get("/readyz")).json()
        assert (said["code"], said["ready"], said["checks"]["redis"]) == ("recovering", False, "ok")
        assert said["checks"]["place"].startswith("p03: Redis is empty")
        assert {name for name, one in said["partitions"].items() if one != "ok"} == {"p03"}
        assert (await api.client.get("/readyz?any")).status_code == 200
        for place, sku in skus.items():
            answer = await api.post("/v1/holds", {"lines": [{"sku": sku, "quantity": 1}]}, key="new")
            assert answer.status_code == (503 if place == "p03" else 201), answer.text
            read = await api.client.get(f"/v1/holds/{held[place]['id']}")
            assert read.status_code == (503 if place == "p03" else 200)
        status, report = flashhold(api, "restore", "--json")
        assert (status, {one["partition"]: one["found"] for one in report["partitions"]}) == (
            1, {name: "store-empty" if name == "p03" else "whole" for name in NAMES},
        )  # fmt: skip
        with worker_process(one_redis_url, database_url):

            async def back() -> bool:
                said = await api.client.get("/readyz")
                return said.status_code == 200 and said.json().get("restored", {}).get("p03", {}).get("epoch") == 2

            await until(back, "readiness", 30)
            released = await api.post(f"/v1/holds/{held['p03']['id']}/release")
            assert (released.status_code, released.json()["epoch"]) == (200, 2)
            receipt = {"type": "receipt", "sku": moved, "quantity": 1}
            entry = (await api.post("/v1/movements", receipt, key="new")).raise_for_status().json()
            assert entry["partition"] == "p01"
            reports = await audits(api)
            assert all(report.clean for report in reports.values()), reports


async def test_every_command_knows_all_partitions(one_redis_url: str, database_url: str) -> None:
    """Audit, restore, resume and doctor find out by themselves how many there are, also where the first one is lost."""
    async with running_api(one_redis_url, database_url, partitions=PARTITIONS) as api:
        with worker_process(one_redis_url, database_url):
            for (sku,) in skus_by_place().values():
                await trade(api, sku)
            status, report = flashhold(api, "audit", "--json")
        assert (status, report["clean"], report["entries"], report["holds"]) == (0, True, 12, 6)
        assert [one["partition"] for one in report["partitions"]] == list(NAMES)
        status, report = flashhold(api, "audit", "--json", "--partition", "p04")
        assert (status, report["partition"], report["entries"]) == (0, "p04", 2)
        assert flashhold(api, "audit", "--partition", "p06")[0] == 1
        assert {one["setting"] for one in flashhold(api, "doctor", "--json")[1]["findings"]} == {
            "fsync"
        }  # of the tests'
        assert flashhold(api, "resume", "p02", "--look")[0] == 0
        with redis.Redis.from_url(one_redis_url) as client:
            client.hdel(partition_keys("p04").stock, *client.hkeys(partition_keys("p04").stock))
        lose(one_redis_url, "p00")
        status, report = flashhold(api, "audit", "--json")
        wrong = {one["partition"]: one for one in report["partitions"] if not one["clean"]}
        assert (status, set(wrong)) == (1, {"p00", "p04"})
        assert "error" in wrong["p00"] and wrong["p04"]["differences"]
        status, report = flashhold(api, "restore", "--json", "--yes")
        assert (status, [one["partition"] for one in report["partitions"] if one["restored"]]) == (0, ["p00"])
        status, report = flashhold(api, "restore", "--json", "--yes", "--partition", "p04")
        assert (status, report["restored"], report["found"]) == (0, True, "whole")
        with worker_process(one_redis_url, database_url):
            assert flashhold(api, "audit", "--json")[1]["clean"]


@pytest.mark.parametrize("other", [1, 4, 7])
async def test_processes_that_disagree_on_the_number_of_partitions_refuse(
    one_redis_url: str, database_url: str, other: int
) -> None:
    """More, fewer or one: they would look for SKUs where they are not. Nothing is made that nobody would look into."""
    async with running_api(one_redis_url, database_url, partitions=PARTITIONS) as api:
        with pytest.raises(TimeoutError, match=f"partitions 6, here {other}"):
            async with running_api(one_redis_url, database_url, partitions=other, patience_seconds=1.5):
                pass
        with worker_process(one_redis_url, database_url, FLASHHOLD_PARTITIONS=str(other)) as worker:
            assert worker.wait(20) == 1
        with redis.Redis.from_url(one_redis_url) as client:
            assert len(client.keys("*:meta")) == PARTITIONS
        assert (await api.client.get("/readyz")).status_code == 200


async def test_a_store_that_was_made_before_there_were_several_is_one_of_one(one_redis_url: str) -> None:
    """It says nothing of partitions: fine for one, refused for more."""
    async with await Engine.connect(one_redis_url) as engine:
        await engine.install()
        with redis.Redis.from_url(one_redis_url) as client:
            client.hdel(partition_keys("p00").meta, "partitions")
    async with await Engine.connect(one_redis_url) as engine:
        await engine.install()
    with pytest.raises(Misconfigured, match="partitions 1, here 2"):
        await Engine.connect(one_redis_url, options=EngineOptions(partitions=2))
