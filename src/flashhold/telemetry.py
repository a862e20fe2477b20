"""Logs and metrics. One JSON line an event; Prometheus metrics that are right whichever HTTP process is scraped.

Several HTTP processes share one port, so a scrape reaches any of them. With `PROMETHEUS_MULTIPROC_DIR` set (`serve`
does so for its children) each process writes its figures to a memory-mapped file there, and whoever is scraped adds
up all files: counters never jump back and forth between processes. A label with the worker's number would not help,
since each scrape would still see only one of them.
"""

import logging
import os
import sys
from bisect import bisect_left
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import multiprocess as multiprocess_metrics

LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Tally:
    """Answers of one route and status that have been counted but not shown yet.

    A histogram in a shared file takes 2.5 us an observation, a tenth of what the door spends on a hold; so answers are
    counted here and added to the histogram together. Its buckets have no public way to take more than one.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self.counts = [0] * (len(LATENCY_BUCKETS_SECONDS) + 1)
        self.seconds = 0.0

    def show(self) -> None:
        """Add what has been counted since to the histogram."""
        counts, seconds = self.counts, self.seconds
        self.counts, self.seconds = [0] * len(counts), 0.0
        for bucket, count in zip(self._histogram._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        if seconds:
            self._histogram._sum.inc(seconds)


class HttpMetrics:
    """What the HTTP door counts. One a process; names are part of the operator's interface."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._requests = Histogram(
            "flashhold_http_request_seconds",
            "Time from the whole request's arrival to its answer, by route and status; its count is the request count.",
            ["route", "status"],
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._tallies: dict[tuple[str, int], Tally] = {}
        self.waiting = Gauge(
            "flashhold_engine_waiting",
            "Commands that wait for a batch.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.ready = Gauge(
            "flashhold_ready",
            "1 while this deployment's HTTP processes all take orders.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.missing_entries = Gauge(
            "flashhold_missing_entries",
            "Entries that Redis had shown and that the last restore could not bring back.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.failures = Counter(
            "flashhold_http_failures",
            "Answers 500: faults of the program, each is logged with its traceback.",
            registry=self.registry,
        )

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one answer; `route` is the verb's name, never a path that a client chose."""
        tally = self._tallies.get((route, status))
        if tally is None:
            tally = self._tallies[route, status] = Tally(self._requests.labels(route, str(status)))
        tally.counts[bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1
        tally.seconds += seconds

    def show(self) -> None:
        """Bring what was counted to where a scrape of any process finds it."""
        for tally in self._tallies.values():
            tally.show()

    def exposition(self) -> bytes:
        """The text that Prometheus reads, over all processes where there are several."""
        self.show()
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not directory:
            return generate_latest(self.registry)
        forget_dead_processes(Path(directory))
        together = CollectorRegistry()
        multiprocess_metrics.MultiProcessCollector(together, path=directory)  # type: ignore[no-untyped-call]  # untyped upstream
        return generate_latest(together)


def forget_dead_processes(directory: Path) -> None:
    """Drop the gauges of processes that were killed; their counters stay in the sums."""
    for pid in {int(file.stem.rsplit("_", 1)[1]) for file in directory.glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess_metrics.mark_process_dead(pid, path=str(directory))  # type: ignore[no-untyped-call]  # untyped upstream
        except PermissionError:
            continue


def configure_logging(level: str, form: str) -> None:
    """One line an event on standard error, our own and the libraries' alike; call once a process."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger; `logger(__name__).warning("journal-behind", entries=5)`."""
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return bound
