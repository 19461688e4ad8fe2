"""The bench of intake at a tiny scale: it runs, measures and prints. How fast that was is not looked at."""

import json
import shutil
from pathlib import Path

import pytest

from bench import intake, posting
from bench.eventgate import find_eventgate
from bench.processes import BenchError
from bench.report import Row, table
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from tests.support.kafka import Broker

STAND_IN = """
const conf = JSON.parse(require('fs').readFileSync(process.argv[3], 'utf8')).services[0].conf;
require('http').createServer((request, response) => {
  request.resume().on('end', () => { response.statusCode = 201; response.end(); });
}).listen(conf.port, conf.interface);
"""


def _number(rows: list[Row], what: str) -> float:
    (row,) = (row for row in rows if row.what == what)
    return float(row.measured.split()[0].replace(",", ""))


@pytest.mark.skipif(shutil.which("cc") is None, reason="a C compiler makes the load")
async def test_bench_of_intake_measures_ours_beside_what_is_called_eventgate(
    kafka_broker: Broker, node: str, tmp_path: Path
) -> None:
    admin = TopicsAdmin(kafka_broker.servers, {})
    if posting.STREAM not in await admin.topics():
        await admin.create(WantedTopic(posting.STREAM, 1))
    (tmp_path / "package.json").write_text(json.dumps({"name": "eventgate"}))
    (tmp_path / "server.js").write_text(STAND_IN)

    rows = list(
        await intake.compare(tmp_path, f"kafka://{kafka_broker.servers}", eventgate=tmp_path, seconds=0.3, events=400)
    )

    assert table(rows).count("\n") == len(rows) + 1
    for load in intake.LOADS:
        for whose in ("", "EventGate, "):
            assert _number(rows, f"{whose}{load.name}, CPU") > 0
        assert _number(rows, f"{load.name}, events/s over EventGate's") > 0
        for stage in ("HTTP", "parse", "validate", "stamp", "serialise", "produce"):
            assert _number(rows, f"{load.name}, CPU: {stage}") > 0


def test_eventgate_is_only_run_from_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"name": "another"}))

    with pytest.raises(BenchError, match="no package eventgate"):
        find_eventgate(tmp_path)
