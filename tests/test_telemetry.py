"""What an operator's tools see of a process."""

import json

import pytest

from flashhold import telemetry
from flashhold.telemetry import HttpMetrics


def shown(metrics: HttpMetrics, name: str) -> dict[str, float]:
    """Samples of one name by their labels."""
    lines = [line for line in metrics.exposition().decode().splitlines() if line.startswith(name)]
    return {line.removeprefix(name).rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_every_answer_is_in_its_bucket() -> None:
    """Counted together or one by one, answers are in the histogram once, at the right latency, with the right sum."""
    metrics = HttpMetrics()
    for seconds in (0.0005, 0.001, 0.0011, 0.3, 99.0):
        metrics.observe("hold", 201, seconds)
    metrics.observe("hold", 409, 0.02)
    for _ in range(2):  # being looked at changes nothing
        buckets = shown(metrics, "flashhold_http_request_seconds_bucket")
        of_201 = {float(labels.split('"')[1]): count for labels, count in buckets.items() if 'status="201"' in labels}
        assert [of_201[bound] for bound in (0.001, 0.0025, 0.25, 0.5, 5.0, float("inf"))] == [2, 3, 3, 4, 4, 5]
        counts = shown(metrics, "flashhold_http_request_seconds_count")
        assert counts == {'{route="hold",status="201"}': 5, '{route="hold",status="409"}': 1}
        sums = shown(metrics, "flashhold_http_request_seconds_sum")
        assert sums['{route="hold",status="201"}'] == pytest.approx(99.3026)
    metrics.observe("hold", 201, 0.001)
    assert shown(metrics, "flashhold_http_request_seconds_count")['{route="hold",status="201"}'] == 6


def test_logs_are_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Every event is one line of JSON, with its traceback inside where there is one."""
    telemetry.configure_logging("info", "json")
    log = telemetry.logger("flashhold.test")
    try:
        raise ValueError("broken\nin two lines")
    except ValueError:
        log.error("fault", path="/v1/holds", exc_info=True)
    log.debug("not-shown")
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["logger"]) == ("fault", "error", "flashhold.test")
    assert "broken\nin two lines" in told["exception"]
