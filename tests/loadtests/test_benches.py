"""Each bench on a tiny size: it runs from end to end and its figures are of the right order."""

import shutil
from pathlib import Path

import pytest
from loadtests.bench import audit, deadline, engine, http_holds, live_holds, memory, stress, write_behind

from flashhold.embedded.binaries import RedisBinary, redis_binaries
from loadtests import http_load, stores


@pytest.fixture(scope="module")
def binary() -> RedisBinary:
    return next(found for found in redis_binaries() if found.product == "valkey")


@pytest.mark.skipif(not shutil.which("redis-benchmark"), reason="redis-benchmark comes with redis-tools")
async def test_the_engine_is_measured_in_both_shapes_at_both_levels(tmp_path: Path, binary: RedisBinary) -> None:
    """Two levels, two shapes, and the fsynced divisor; all of an order that a real engine can have."""
    size = engine.Size(holds=2_000, increments=5_000, increments_synced=1_000, tasks=100, repetitions=1)
    figures = await engine.measure(tmp_path, size, binary)
    assert [figure.bar for figure in figures] == [1.0, None, 0.7, None, None]
    assert all(0.01 < figure.measured < 20 for figure in figures)
    assert all(figure.raw["holds_per_s"] > 500 for figure in figures)


async def test_a_missing_redis_benchmark_is_said_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is put in its place."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    server = stores.Redis("redis://127.0.0.1:1/0", 1, 1, "none", False)
    with pytest.raises(RuntimeError, match="redis-tools"):
        engine.increments_per_second(server, 1, None)


async def test_memory_is_counted_a_live_hold(tmp_path: Path, binary: RedisBinary) -> None:
    """More than the record alone could be, less than a key a hold would cost."""
    (figure,) = await memory.measure(tmp_path, memory.Size(5_000), binary)
    assert 100 < figure.measured < 1_000


async def test_holds_among_many_and_among_few_are_measured_in_turn(tmp_path: Path, binary: RedisBinary) -> None:
    """Wall clock and the server's own time, each a quotient near one at this size."""
    size = live_holds.Size(few=100, many=2_000, holds=500, repetitions=2)
    figures = await live_holds.measure(tmp_path, size, binary)
    assert [0.2 < figure.measured < 5 for figure in figures] == [True] * 4


async def test_an_audit_sees_every_hold(tmp_path: Path, binary: RedisBinary) -> None:
    """Or the bench would have failed; it took some of the server's time, and not most of it."""
    seconds, share = await audit.measure(tmp_path, audit.Size(3_000), binary)
    assert 0 < seconds.raw["seconds"] < 60
    assert 0 < share.measured < 0.5


async def test_the_http_client_counts_what_a_server_answers(tmp_path: Path) -> None:
    """Against the route that does nothing: only 201, in about the time that was asked for."""
    with stores.web_app("loadtests.bench.nothing_app:app", tmp_path, {}) as url:
        measured = await http_load.run_apart(url, "none", "s", connections=4, seconds=0.5, core=None)
    assert set(measured.statuses) == {201}
    assert measured.per_second(201) > 50
    assert 0 < measured.p50_ms <= measured.p99_ms


async def test_a_deadline_that_many_share_is_swept_and_none_is_early(tmp_path: Path, binary: RedisBinary) -> None:
    """Every hold once, judged from the journal; buyers meanwhile are answered."""
    size = deadline.Size(holds=3_000, per_second=100, calm_seconds=1.0)
    seconds, early, p99 = await deadline.measure(tmp_path, size, binary)
    assert 0 <= seconds.measured < 20
    assert (early.measured, early.raw["holds"]) == (0, 3_000)
    assert p99.raw["new_holds_calm"] > 50


@pytest.mark.slow
async def test_http_is_measured_beside_nothing_and_the_usual_design(tmp_path: Path, binary: RedisBinary) -> None:
    """Three servers, one client, every answer a 201; two quotients with their bars."""
    size = http_holds.Size(seconds=0.5, connections=8, repetitions=1)
    figures = await http_holds.measure(tmp_path, size, binary)
    assert [figure.bar for figure in figures] == [2.0, 5.0]
    assert all(figure.raw["holds_per_s"] > 50 and figure.measured > 0.05 for figure in figures)


@pytest.mark.slow
async def test_the_write_behind_is_measured_against_http_of_the_same_run(tmp_path: Path, binary: RedisBinary) -> None:
    """Every entry that was made reached the ledger, or the bench would have failed."""
    size = write_behind.Size(entries=2_000, repetitions=1, http=http_holds.Size(seconds=0.5, connections=8))
    (figure,) = await write_behind.measure(tmp_path, size, binary)
    assert figure.raw["entries_per_s"] > 100
    assert figure.raw["HTTP_holds_per_s"] > 50


@pytest.mark.slow
async def test_a_crowd_is_measured_against_the_peak_of_the_same_run(tmp_path: Path, binary: RedisBinary) -> None:
    """Both kinds of answers are counted, and whoever found no connection is not forgotten."""
    size = stress.Size(seconds=1.5, peak_connections=(32,), crowd_connections_min=2_000, repetitions=1)
    try:
        served, refused = await stress.measure(tmp_path, size, binary)
    except stress.NoCrowd as reason:
        pytest.skip(str(reason))  # tests/stress sees to it that a crowd is refused
    assert (served.bar, refused.bar) == (0.8, 100)
    assert served.measured > 0.1
    assert served.raw["offered_per_s"] > 4 * served.raw["peak_per_s"]
    assert refused.raw["refused_per_s"] > 0
