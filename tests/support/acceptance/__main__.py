"""`make acceptance KIT=dir`: start what the kit's fixtures describe, run its runners, print each one's last line."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from tests.support.acceptance import intake, streaming
from tests.support.acceptance.servers import KitError, run_python
from tests.support.kafka import KafkaUnavailable

SUMMARY = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")
HALVES = {"streaming": streaming, "intake": intake}


def say(line: str) -> None:
    """Tell something that is no result."""
    print(line, file=sys.stderr, flush=True)


def run_half(name: str, kit: Path, cases: list[str]) -> tuple[str, bool]:
    """Run one half of the kit; return its runner's last line, and whether all is well."""
    half = HALVES[name]
    with tempfile.TemporaryDirectory(prefix="acceptance-") as folder:
        try:
            with half.environment(kit, Path(folder), say) as (variables, servers):
                status, said = run_python([kit / half.RUNNER, "run", *cases], variables, kit)
                dead = [server for server in servers if server.has_died]
        except (KitError, KafkaUnavailable) as exc:
            return f"not run: {exc}", False
    sys.stdout.write(said)
    for server in dead:
        say(f"the server under {server.name} died: {server.last_words()}")
    line, well = verdict(status, said, some=bool(cases))
    return line, well and not dead


def verdict(status: int, said: str, *, some: bool = False) -> tuple[str, bool]:
    """Return a runner's last line and whether all is well; with all cases asked for, none passed is not well."""
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    summary = SUMMARY.fullmatch(last)
    if status or summary is None:
        return f"crashed with exit status {status}: {last}", False
    passed, failed, _ = map(int, summary.groups())
    return last, not failed and (some or passed > 0)


def main() -> None:
    """Run the kit; the exit status is 1 where a case failed or a runner crashed."""
    parser = argparse.ArgumentParser(prog="acceptance", description=__doc__)
    parser.add_argument("kit", type=Path, help="folder with case files, fixtures, runners and the broker double")
    parser.add_argument("--only", choices=sorted(HALVES), help="one half of it")
    parser.add_argument("cases", nargs="*", help="ids of cases, or flags of the runners behind --; all without")
    given = parser.parse_args()
    kit = given.kit.resolve()
    there = [name for name, half in HALVES.items() if (kit / half.RUNNER).is_file() and given.only in (None, name)]
    if not there:
        sys.exit(f"{kit} holds no kit: expected {' or '.join(half.RUNNER for half in HALVES.values())}")
    results = {HALVES[name].RUNNER: run_half(name, kit, given.cases) for name in there}
    for runner, (line, _) in results.items():
        print(f"{runner}: {line}", flush=True)
    sys.exit(0 if all(well for _, well in results.values()) else 1)


if __name__ == "__main__":
    main()
