"""A FastAPI route that does nothing with a hold's body: what FastAPI itself leaves for anybody's stock logic."""

from fastapi import FastAPI, Header

from loadtests.bench.bodies import HoldBody

app = FastAPI()


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/holds", status_code=201)
async def hold(body: HoldBody, idempotency_key: str = Header(min_length=1, max_length=255)) -> dict[str, str]:
    return {"status": "nothing"}
