"""Every setting, its unit and the reason for its default, read from `FLASHHOLD_*` variables."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flashhold.domain.places import PARTITIONS_MAX

DurabilityLevel = Literal["memory", "disk", "replica", "ledger"]


class Settings(BaseSettings):
    """What an operator can choose. Those that all processes must share say so; the others are a process's own."""

    model_config = SettingsConfigDict(env_prefix="FLASHHOLD_", extra="ignore", frozen=True)

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="The Redis or Valkey server that decides. `redis://…`, `rediss://…`, `unix://…`, "
        "`redis+sentinel://host:port,host:port/name`, or `redis+cluster://host:port,host:port`. Shared.",
    )
    database_url: str = Field(
        default="postgresql://127.0.0.1:5432/flashhold",
        description="The Postgres database that remembers. Shared.",
    )
    data_dir: Path = Field(
        default=Path("./flashhold-data"),
        description="Where `flashhold up` keeps its servers' data, process ids and the first admin key.",
    )

    partitions: int = Field(
        default=1,
        ge=1,
        le=PARTITIONS_MAX,
        description="Units of atomicity that the SKUs are spread over. One is best for one Redis server; a cluster "
        "wants several a node (`flashhold cluster plan`). Cannot be changed once there is data. Shared.",
    )

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; only this machine until someone decides otherwise."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port of the API.")
    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="HTTP processes. One fills a core; more than the cores beside Redis gain nothing.",
    )

    durability: DurabilityLevel = Field(
        default="disk",
        description="What an acknowledgement has survived: `memory` nothing, `disk` an fsync, `replica` also the loss "
        "of one Redis node with its disk, `ledger` the loss of all of Redis.",
    )
    hold_ttl_seconds: int = Field(
        default=600, ge=1, description="A hold's life where neither the request nor the policy says. Shared."
    )
    hold_ttl_seconds_max: int = Field(
        default=86_400, ge=1, description="The longest life of a hold, extensions included. Shared."
    )
    retention_hours: float = Field(
        default=24,
        ge=0.0001,
        description="How long an accepted idempotency key is remembered after its hold ended. Shared.",
    )
    refused_retention_hours: float = Field(
        default=1, ge=0.0001, description="How long a refused idempotency key is remembered. Shared."
    )

    batch_size_max: int = Field(
        default=256, ge=1, le=1024, description="Commands a batch: keeps one script below about 3 ms."
    )
    batches_in_flight_max: int = Field(
        default=1,
        ge=1,
        le=8,
        description="Batches sent and not yet answered. One: a batch has a fixed cost of its own, so "
        "fewer and larger ones answered 20 % more holds over 64 connections than two, in half the time.",
    )
    waiting_max: int = Field(
        default=10_000,
        ge=1,
        description="Commands that may wait in one process before it answers 429: about half a second's worth.",
    )
    reply_timeout_ms: int = Field(
        default=2_000,
        ge=10,
        description="How long a batch may go unanswered before its callers get 503 and the connection is renewed.",
    )

    body_bytes_max: int = Field(
        default=65_536, ge=1_024, description="Largest request body; 100 lines with long SKUs need half of it."
    )
    headers_max: int = Field(
        default=100, ge=8, description="Header lines a request; browsers and proxies send fewer than 30."
    )
    header_bytes_max: int = Field(default=16_384, ge=1_024, description="Bytes of request line and headers together.")
    receipt_timeout_ms: int = Field(
        default=10_000,
        ge=50,
        description="A request must have arrived whole in this time, else 408: slow senders may not pin memory.",
    )
    keep_alive_seconds: int = Field(
        default=65,
        ge=1,
        description="Idle connections are kept longer than the usual 60 s of load balancers, so that they close first.",
    )
    connections_max: int = Field(
        default=10_000, ge=1, description="Open connections a process; each costs about 10 kB."
    )
    shutdown_seconds: int = Field(default=15, ge=1, description="How long requests in flight may finish after SIGTERM.")

    availability_max_age_ms: int = Field(
        default=250,
        ge=0,
        description="How old the projection for product pages may be; one read of Redis in that time serves all.",
    )
    keys_refresh_ms: int = Field(
        default=2_000, ge=100, le=4_000, description="API keys are read anew this often: a revoked key dies within 5 s."
    )
    readiness_refresh_ms: int = Field(
        default=1_000, ge=50, description="How often a process compares Redis' place with the ledger's."
    )
    public_operations: bool = Field(
        default=True,
        description="Whether /metrics and /openapi.json need no key. Turn off where the port faces the public.",
    )

    worker_metrics_port: int = Field(
        default=0, ge=0, le=65535, description="TCP port for the worker's Prometheus figures, on `host`; 0: none."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged."
    )
    log_format: Literal["json", "text"] = Field(default="json", description="`text` for a terminal.")
