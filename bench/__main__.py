"""Run benches and print the table: `python -m bench [NAME ...]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from bench import burst, fanout, idle, intake, latency, machine, replay, stalled
from bench.processes import BenchError
from bench.report import Row, table

Bench = Callable[[Path], Awaitable[Sequence[Row]]]

BENCHES: dict[str, Bench] = {
    "fanout": fanout.run,
    "burst": burst.run,
    "idle": idle.run,
    "replay": replay.run_one,
    "crowd": replay.run_crowd,
    "stalled": stalled.run,
    "latency": latency.run,
    "intake": intake.run,
}


def main(arguments: Sequence[str]) -> int:
    """Run the benches named, all without names; exit status 1 when a target is not met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all without")
    parser.add_argument(
        "--eventgate", type=Path, metavar="DIR", help="where EventGate and its packages are installed, to run beside"
    )
    given = parser.parse_args(arguments)
    names = given.names or list(BENCHES)
    benches: dict[str, Bench] = {**BENCHES, "intake": partial(intake.run, eventgate=given.eventgate)}
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"no bench {unknown[0]!r}: expected some of {', '.join(BENCHES)}")
    too_few = machine.raise_descriptors()
    print(machine.description(), flush=True)
    machine.pin(os.getpid(), machine.LOAD_CORE)
    if too_few:
        print(too_few, flush=True)
    rows = [row for name in names for row in _run(name, benches[name])]
    print()
    print(table(rows))
    return 1 if any(row.met is False for row in rows) else 0


def _run(name: str, bench: Bench) -> Sequence[Row]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            rows: Sequence[Row] = asyncio.run(_job(bench, Path(folder)))
        except BenchError as exc:
            rows = [Row(name, "could not be run", str(exc), met=False)]
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


async def _job(bench: Bench, folder: Path) -> Sequence[Row]:
    return await bench(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
