"""Redis itself spoiled: emptied, cut, changed by somebody else, full. What it says then must never be believed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import redis

from tests.faults import injectors
from tests.faults.history import Answered
from tests.faults.injectors import Broken
from tests.faults.load import LONG_TTL_S, SKUS
from tests.faults.stack import OwnStack
from tests.faults.trial import Scenario, Trial

FOUND_WITHIN_S = 60.0
_CLOSED_FOR_S = 6.0
"""How long an emptied store is watched to stay closed where nothing rebuilds it."""
_REBUILT_WITHIN_S = 60.0
_FULL_WITHIN_S = 20.0
_STAYS_OPEN_S = 10.0
"""Some rounds of the rolling audit."""
INVENTED = frozenset({
    "epoch-back", "seq-fork", "seq-gap", "clock-back", "chain-in-batch", "chain-broken", "rows-differ", "not-zero-sum",
    "no-cause", "not-as-asked", "counter-drift", "store-place", "balance-drift",
})  # fmt: skip
"""What no foreign write excuses. (Answers between it and the closing may be wrong, whatever is done later.)"""
LOST = frozenset({"acknowledged-lost", "acknowledged-elsewhere", "answer-differs", "place-missing"})
"""What only one excuses that was made into what the ledger is made from."""


class Probe:
    """What must work, and what must not, while Redis has no memory left. It asks beside the crowd, on record."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._client = trial.load.client
        self._name = f"probe-{trial.rng.randrange(10**9)}"
        self._holds: list[str] = []

    async def prepare(self) -> None:
        """Two holds to give back later."""
        for number in range(2):
            ended = await self._hold(f"{self._name}-{number}", 20)
            assert isinstance(ended, Answered) and ended.status == 201, ended
            self._holds.append(ended.body["id"])

    async def while_full(self) -> None:
        """Fill what is left, then see that the holds can be given back and sold."""
        until = time.monotonic() + _FULL_WITHIN_S
        number = 0
        while time.monotonic() < until:
            number += 1
            ended = await self._client.call("hold", self._request(), key=f"{self._name}-fill-{number}")
            if not isinstance(ended, Answered):
                break
        else:
            self._trial.wrong(f"holds are still taken {_FULL_WITHIN_S:.0f} s after maxmemory was set: {number} of them")
        for verb, hold in zip(("release", "commit"), self._holds, strict=True):
            ended = await self._client.retry_until_known(verb, {"hold": hold}, key=None, deadline_s=5)
            if not isinstance(ended, Answered) or ended.status != 200:
                self._trial.wrong(f"{verb} does not go on at maxmemory: {ended}")

    async def _hold(self, key: str, deadline_s: float) -> object:
        return await self._client.retry_until_known("hold", self._request(), key=key, deadline_s=deadline_s)

    @staticmethod
    def _request() -> dict[str, object]:
        return {"lines": [{"sku": SKUS[1], "quantity": 1}], "ttl_seconds": LONG_TTL_S, "metadata": {"note": "x" * 2000}}


async def emptied(how: str, trial: Trial) -> None:
    """All of Redis is gone: 503 until it is rebuilt, nothing of what is left is shown, nothing is sold again."""
    trial.level = "memory"  # no level but `ledger` survives it; what the ledger has must still be there
    await asyncio.sleep(trial.rng.uniform(1.0, 3.0))
    with trial.history.fault(f"Redis {how}"):
        if how == "flushed":
            at = time.monotonic()
            injectors.flush_all(trial.stack)
            broken = Broken("FLUSHALL", at, time.monotonic())
        else:
            assert isinstance(trial.stack, OwnStack)
            broken = await injectors.lose_data_directory(trial.stack)
        await closed_until_rebuilt(trial, broken)
    trial.outcome.trials += 1


async def cut(trial: Trial) -> None:
    """Redis starts on an older or shorter file than it had: behind the ledger, so it must not sell from there."""
    trial.level = "memory"
    assert isinstance(trial.stack, OwnStack)
    await asyncio.sleep(trial.rng.uniform(2.0, 4.0))
    await trial.caught_up()
    with trial.history.fault("append-only file cut"):
        broken = await injectors.rewrite_aof(trial.stack, injectors.cut_tail(trial.rng.uniform(0.2, 0.8)))
        if trial.rng.random() < 0.5:  # who remembers what Redis has shown is then gone; the ledger still knows
            await injectors.kill(trial.stack, "api", trial.rng)
        await closed_until_rebuilt(trial, broken)
    trial.outcome.trials += 1


async def closed_until_rebuilt(trial: Trial, broken: Broken) -> None:
    """No answer is given from an emptied store. Where it is rebuilt, the first acknowledgement comes within a minute
    and the usual judgement follows; where nothing rebuilds it, it must stay closed."""
    shown = await _watch_pages(trial, _CLOSED_FOR_S)
    if shown:
        trial.wrong(f"{broken.what}: pages showed {shown}")
    first = await trial.load.first_success(broken.back_at + 0.05, 0)
    rebuilt = _epoch(trial) > 1
    if first is not None and not rebuilt:
        trial.wrong(f"{broken.what}: sold on in the old epoch {first - broken.back_at:.2f} s after its return")
    if rebuilt:
        first = await trial.load.first_success(broken.back_at, _REBUILT_WITHIN_S)
        if first is None:
            trial.wrong(f"{broken.what}: rebuilt, but nothing acknowledged within {_REBUILT_WITHIN_S:.0f} s")
        else:
            trial.outcome.recovery_s = first - broken.back_at
    else:
        trial.note("closed and not rebuilt")
        trial.store_stands = False


async def _watch_pages(trial: Trial, seconds: float) -> list[str]:
    """What product pages and stock reads show of an empty store, which is nothing or a 503."""
    shown = []
    until = time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {trial.stack.admin_key}"}
    async with httpx.AsyncClient(base_url=trial.stack.url, headers=headers, timeout=5) as pages:
        while time.monotonic() < until and _epoch(trial) < 2:
            for path in (f"/v1/availability?sku={SKUS[1]}", f"/v1/skus/{SKUS[1]}"):
                try:
                    answer = await pages.get(path)
                except httpx.TransportError:
                    continue
                told = answer.json()
                if answer.status_code == 404 or told.get("unknown") or told.get("on_hand") == 0:
                    shown.append(f"{path}: {answer.status_code} {answer.text[:200]}")
            await asyncio.sleep(0.05)
    return shown[:3]


def _epoch(trial: Trial) -> int:
    with injectors.client(trial.stack) as connection:
        try:
            return int(connection.hget(f"{{{injectors.PARTITION}}}:meta", "epoch") or 0)
        except redis.RedisError:
            return 0


async def foreign(spoil: Callable[[Trial], Awaitable[None]], trial: Trial, *, journal: bool = False) -> None:
    """Somebody else writes: found within a minute without anybody asking, the partition closed, the audit not clean;
    then repaired by `flashhold restore`, and nothing in it that nobody had asked for. `journal`: it was written into
    what the ledger is made from, so what the ledger had not yet can be lost; it is listed."""
    trial.judged = False
    await asyncio.sleep(trial.rng.uniform(1.5, 3.0))
    with trial.history.fault("foreign write"):
        await spoil(trial)
        # At once, beside the watch: what the crowd goes on to do can mend some of it.
        audited = asyncio.create_task(asyncio.to_thread(trial.stack.command, "audit"))
        found_s = await _closed_after(trial)
        status, report = await audited
        trial.outcome.trials += 1
        by_itself = found_s is not None and _epoch(trial) > 1
        if by_itself:
            trial.note("rebuilt from the ledger by itself")
        elif status == 0:
            trial.wrong("flashhold audit finds nothing")
        if found_s is None:
            what = [difference["what"] for difference in report.get("differences", [])][:3] or report.get("error")
            trial.wrong(f"/readyz is still 200 after {FOUND_WITHIN_S:.0f} s (flashhold audit: status {status}, {what})")
            return
        trial.outcome.recovery_s = found_s
        await _repaired(trial, by_itself=by_itself, journal=journal)
    trial.judged = True
    trial.level = "memory" if journal or by_itself else trial.level
    trial.counted = INVENTED if journal or by_itself else INVENTED | LOST


async def _repaired(trial: Trial, *, by_itself: bool, journal: bool) -> None:
    """Restore, and see the shop open again and stay so while selling goes on."""
    if not by_itself:
        status, report = await asyncio.to_thread(trial.stack.command, "restore", "--yes")
        trial.note(f"restore: {report.get('sentence') or report}")
        if not report.get("restored") or (status != 0 and not journal):
            trial.wrong(f"flashhold restore --yes ends with {status}: {report}")
            return
    first = await trial.load.first_success(time.monotonic(), _REBUILT_WITHIN_S)
    if first is None:
        trial.wrong(f"repaired, but nothing acknowledged within {_REBUILT_WITHIN_S:.0f} s")
        return
    status, report = await asyncio.to_thread(trial.stack.command, "audit")
    if status != 0:
        trial.wrong(f"flashhold audit after the repair ends with {status}: {str(report)[:2000]}")
    again_s = await _closed_after(trial, _STAYS_OPEN_S)
    if again_s is not None:
        trial.wrong(f"closed again {again_s:.1f} s after the repair")


async def _closed_after(trial: Trial, within_s: float = FOUND_WITHIN_S) -> float | None:
    """Seconds until the API says that it is not ready; None: not within the time."""
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=trial.stack.url, timeout=5) as caller:
        while (waited := time.monotonic() - began) < within_s:
            try:
                if (await caller.get("/readyz")).status_code == 503:
                    return waited
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    return None


async def _write(name: str, trial: Trial) -> None:
    with injectors.client(trial.stack) as connection:
        injectors.FOREIGN_WRITES[name](connection, trial.rng)


async def _trim(trial: Trial) -> None:
    async with injectors.worker_still(trial.stack):
        injectors.trim(trial.stack)


async def _flip(trial: Trial) -> None:
    assert isinstance(trial.stack, OwnStack)
    flip = injectors.flip_last_byte_behind(b"payload\r\n", trial.rng.randint(12, 30))
    async with injectors.worker_still(trial.stack):
        await injectors.rewrite_aof(trial.stack, flip)


_JOURNAL = frozenset({"del-meta", "hincrby-meta", "xadd-journal", "xtrim", "flipped-byte"})


def _foreign(name: str, spoil: Callable[[Trial], Awaitable[None]]) -> Scenario:
    torment = partial(foreign, spoil, journal=name in _JOURNAL)
    return Scenario(f"foreign-{name}", f"foreign: {name}", torment, times=1, target=1, seconds=75)


SCENARIOS = (
    Scenario("data-flushed", "FLUSHALL under load", partial(emptied, "flushed"), times=1, target=10, seconds=25),
    Scenario("data-removed", "Redis' files removed", partial(emptied, "removed"), times=1, target=10, seconds=25),
    Scenario("aof-cut", "append-only file cut", cut, times=1, target=10, seconds=25),
    *(_foreign(name, partial(_write, name)) for name in injectors.FOREIGN_WRITES),
    _foreign("xtrim", _trim),
    _foreign("flipped-byte", _flip),
)
