"""The official parser of AsyncAPI documents, from npm, in a cache folder outside of the tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.cache import fetched

HERE = Path(__file__).parent
MANIFEST = HERE / "package.json"
INSTALL_TIMEOUT = 100.0
RUN_TIMEOUT = 60.0


class ParserUnavailable(Exception):
    """The parser cannot be had here; says why."""


def installed() -> Path:
    """Return the folder with the parser, fetched where it is not there. Raises: ParserUnavailable."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise ParserUnavailable(f"there is no {program}")
    return fetched("asyncapi", [MANIFEST], _fetch)


def _fetch(folder: Path) -> None:
    shutil.copy(MANIFEST, folder)
    command = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
    if done.returncode:
        raise ParserUnavailable(f"npm could not fetch the parser: {done.stderr[-1000:]}")


def findings(document: bytes) -> list[str]:
    """Return what the parser says: errors, then how many channels and operations it has read.

    Raises: ParserUnavailable.
    """
    done = subprocess.run(
        ["node", str(HERE / "validate.cjs")],
        cwd=installed(),
        input=document,
        capture_output=True,
        timeout=RUN_TIMEOUT,
        check=True,
    )
    return done.stdout.decode().splitlines()
