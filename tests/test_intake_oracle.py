"""The kill rig of intake, short: nothing acknowledged is lost, nothing stored twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.intake_oracle import Report, Rig
from tests.support.kafka import Broker


@pytest.mark.kafka
@pytest.mark.parametrize("spool", [False, True])
async def test_nothing_acknowledged_is_lost_or_stored_twice_whatever_is_killed(
    tmp_path: Path, kafka_broker: Broker, spool: bool
) -> None:
    # The suite's broker is asked for so that one word tells where there is none; this one is to be killed.
    rig = Rig(tmp_path, producers=8, seed=3, spool=spool)
    report = await rig.run(kills=1, acknowledged=1000, seconds=0.0)
    assert report.clean, (str(report), report.surprises[:5])
    assert (report.spooled > 0) is spool


def judged(*partition: int, acknowledged: tuple[int, ...] = (1, 2, 3)) -> Report:
    report = Report()
    report.judge(set(acknowledged), [[{"n": number, "producer": 0} for number in partition]])
    return report


def test_rig_counts_what_is_missing_twice_or_out_of_order() -> None:
    assert judged(1, 2, 9, 3).clean
    assert judged(1, 3).missing == 1
    assert judged(1, 2, 2, 3).twice == 1
    assert judged(2, 1, 3).reordered == 1
    assert judged(9, 1, 2, 3, 8).clean
