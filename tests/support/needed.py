"""Programs that tests need: without them they are skipped, in continuous integration they fail."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from tests.clients.toolchains import ToolchainMissing, browser

BROWSER_TIMEOUT = 90.0


def program(name: str, missing: list[str]) -> str:
    """Return where a program is; `missing` takes down that there is none."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    return found or lacking(f"there is no {name}", missing)


def chromium(driver: str, missing: list[str]) -> Sequence[str]:
    """Return the command that runs a driver of Chromium."""
    try:
        return browser("chromium", driver)
    except ToolchainMissing as exc:
        lacking(str(exc), missing)


def lacking(reason: str, missing: list[str]) -> NoReturn:
    """Skip the test, or fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    missing.append(reason)
    pytest.skip(reason)


async def told_by(command: Sequence[str], *arguments: str) -> Any:
    """Return what a driver prints, as JSON; it must end well."""
    process = await asyncio.create_subprocess_exec(*command, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(BROWSER_TIMEOUT):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0
    return json.loads(told)
