"""The body of `POST /v1/holds` as pydantic models, for the designs that FlashHold is compared with."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sku: str = Field(min_length=1, max_length=128)
    quantity: int = Field(ge=1, le=1_000_000_000)
    pool: str = Field(default="default", min_length=1, max_length=128)


class HoldBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    lines: list[Line] = Field(min_length=1, max_length=100)
    buyer: str | None = Field(default=None, min_length=1, max_length=128)
    ttl_seconds: int | None = Field(default=None, ge=1, le=86_400)
    allow_partial: bool = False
    metadata: dict[str, Any] | None = None
