"""What is counted is what the process grows by: in a process of its own, by its resident memory."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tests.support.processes import ROOT

TAILS = [
    {"size": 100, "keys": False, "rendered": False, "partitions": 1, "ascii_only": True},
    {"size": 100, "keys": True, "rendered": True, "partitions": 40, "ascii_only": True},
    {"size": 280, "keys": False, "rendered": True, "partitions": 1, "ascii_only": False},
    {"size": 280, "keys": True, "rendered": False, "partitions": 40, "ascii_only": True},
    {"size": 1000, "keys": True, "rendered": True, "partitions": 1, "ascii_only": False},
    {"size": 20_000, "keys": False, "rendered": True, "partitions": 40, "ascii_only": True},
    {"size": 20_000, "keys": True, "rendered": False, "partitions": 1, "ascii_only": True},
]
CASES = [
    *(("tail", {"mib": 16, **given}) for given in TAILS),
    ("blocks", {"mib": 40, "size": 100, "keys": False, "rendered": False}),
    ("blocks", {"mib": 40, "size": 280, "keys": True, "rendered": True}),
    ("blocks", {"mib": 40, "size": 1000, "keys": False, "rendered": True}),
    ("steps", {"mib": 12, "size": 280, "seen": False}),
    ("steps", {"mib": 24, "size": 280, "seen": True}),
]


def named(case: tuple[str, dict[str, Any]]) -> str:
    return "-".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("case", CASES, ids=named)
async def test_process_grows_by_what_is_counted(tmp_path: Path, case: tuple[str, dict[str, Any]]) -> None:
    what, given = case
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.memory", what, json.dumps(given), str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == 0
    found = json.loads(out)
    assert 0.9 <= fmean(found) <= 1.15, found
    assert max(found) <= 1.25, found
