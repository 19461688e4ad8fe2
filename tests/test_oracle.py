"""The oracle rig, short: exact resume through cuts at any byte and kills of gateway and producer."""

from __future__ import annotations

from pathlib import Path

from tests.support.oracle import Rig


async def test_every_client_sees_each_event_once_and_in_order_whatever_is_killed(tmp_path: Path) -> None:
    report = await Rig(tmp_path, clients=8, rate=300.0, seed=1).run(kills=3, cuts=60, seconds=0.0)
    assert report.clean, (str(report), report.surprises[:5])
    assert report.received > report.events
