"""A rehearsal on six partitions: its carts go over them, and all is accounted for."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.http.conftest import Api
from tests.partitions.conftest import audits
from tests.rehearse import small_shop


async def test_a_rehearsal_over_six_partitions_comes_out_even(shop: Api, tmp_path: Path) -> None:
    """Nothing refused, oversold or different, nothing taken for somebody else's; every partition's audit is clean."""
    words = ["-P", "-m", "flashhold", "rehearse", str(small_shop.PATH), "--url", shop.url, "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, env={**os.environ, "FLASHHOLD_API_KEY": shop.admin_key}, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    said, wrong = await process.communicate()
    report = json.loads(said)
    assert process.returncode == 0, wrong
    assert (report["differences"], report["oversold_units"], report["refused"], report["findings"]) == (0, 0, 0, [])
    assert report["entries_of_others"] == []
    assert report["entries"]["hold"] == report["holds"] > 100
    reports = await audits(shop)
    assert all(one.clean for one in reports.values()), reports
    assert sum(one.holds for one in reports.values()) > report["holds"], "or no cart had parts"
