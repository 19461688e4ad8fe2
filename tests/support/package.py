"""The package as people get it: built from a copy of the checkout, installed where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import ROOT

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "eventstreams", "intake", "config")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")
BUILD_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


class Built(NamedTuple):
    """What is uploaded."""

    sdist: Path
    wheel: Path


def build(folder: Path) -> Built:
    """Return the source distribution, and the wheel that is made of it, as build tools do."""
    source, out = folder / "source", folder / "dist"
    source.mkdir()
    for name in SOURCES:
        given = ROOT / name
        if given.is_dir():
            shutil.copytree(given, source / name, symlinks=True, ignore=LEFT_OUT)
        else:
            shutil.copy(given, source / name)
    _run([sys.executable, "-c", BUILD_SDIST, str(out)], source)
    (sdist,) = out.glob("*.tar.gz")
    _pip(["wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(out), str(sdist)], folder)
    (wheel,) = out.glob("*.whl")
    return Built(sdist, wheel)


class Installed(NamedTuple):
    """A virtual environment that has the wheel, and what it requires from the suite's own environment."""

    bin: Path

    def environment(self, settings: Mapping[str, str] = {}) -> dict[str, str]:
        """Return an environment in which its commands are found, and nothing of the checkout; settings by name."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("EVENTSTREAMS_", "PYTHON", "VIRTUAL_ENV"))}
        ours = {f"EVENTSTREAMS_{name.upper().replace('.', '__')}": value for name, value in settings.items()}
        return {**kept, **ours, "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def run(self, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run one of its commands to the end."""
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def install(wheel: Path, folder: Path) -> Installed:
    """Install a wheel into an environment of its own; what it requires is looked for beside the suite."""
    venv.create(folder, symlinks=True)
    python = str(folder / "bin" / "python")
    _pip(["--python", python, "install", "-q", "--no-index", "--no-deps", str(wheel)], folder)
    # After the wheel: pip would take the suite's own link to the checkout for it.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "suite.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(folder / "bin")


def _pip(arguments: list[str], folder: Path) -> None:
    _run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], folder)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
