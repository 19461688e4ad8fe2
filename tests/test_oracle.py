"""The oracle rig, short: exact resume through cuts at any byte and kills of gateway and producer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kafka import Broker
from tests.support.oracle import Rig
from tests.support.places import EmbeddedPlace, KafkaPlace


async def test_every_client_sees_each_event_once_and_in_order_whatever_is_killed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, EmbeddedPlace(tmp_path), clients=8, rate=300.0, seed=1)
    report = await rig.run(kills=3, cuts=60, seconds=0.0)
    assert report.clean, (str(report), report.surprises[:5])
    assert report.received > report.events


@pytest.mark.kafka
@pytest.mark.timeout(300)
async def test_every_client_sees_each_event_once_and_in_order_whatever_is_killed_on_kafka(
    tmp_path: Path, kafka_broker: Broker
) -> None:
    # The suite's broker is asked for so that one word tells where there is none; this one is to be killed.
    rig = Rig(tmp_path, KafkaPlace(tmp_path), clients=8, rate=300.0, seed=1)
    report = await rig.run(kills=2, cuts=60, seconds=0.0)
    assert report.clean, (str(report), report.surprises[:5])
    assert report.received > report.events
