"""The kill rig on three brokers, short: nothing is stored twice, whatever dies, and answers are what the log shows.

Beside it subscribers see topics that grow and topics that are made anew, each event once and in its order.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_oracle import WAYS, Found, Rig, Troubles, table
from tests.support.steady import Ledger
from tests.support.troubles import Hold, Kill
from tests.support.watching import Watching


@pytest.mark.kafka
@pytest.mark.timeout(400)
async def test_each_event_is_stored_as_its_answer_says_whatever_brokers_die_or_stand_still(
    tmp_path: Path, kafka_cluster: Cluster
) -> None:
    watching = Watching(kafka_cluster.servers, tmp_path, clients=3, seed=5, grow=(5.0, 10.0), remake=(4.0, 8.0))
    rig = Rig(kafka_cluster, tmp_path, WAYS, rate=30.0, seed=5, companions=[watching])
    # A trouble for which all of 20 s are not enough leaves events that come later, or never.
    found = await rig.run([Kill(1, [8.0]), Hold(1, [8.0]), Kill(2, [22.0])], 0.0)
    assert all(one.clean for one in found), (table(found), [one.surprises[:5] for one in found])
    assert found[0].ledger.refused
    assert watching.grown
    assert watching.remade
    assert watching.received


def judged(*stored: int, taken: tuple[int, ...] = (1, 2), refused: tuple[int, ...] = (3, 4)) -> Found:
    found = Found(WAYS[0], Ledger(taken=set(taken), refused=set(refused)), Troubles())
    found.judge(Counter(stored))
    return found


def test_rig_counts_what_is_missing_twice_or_late() -> None:
    assert judged(1, 2).clean
    assert not judged(1).clean
    assert judged(1).missing == 1
    assert judged(1, 2, 4).clean
    assert judged(1, 2, 4).late == 1
    assert judged(1, 2, 4, 4).twice == 1
    assert not judged(1, 1, 2).clean
    assert not judged(taken=()).clean
