"""Clients installed by name from their packages, and how their drivers are run."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from tests.clients.matrix import Client, Producer
from tests.support.cache import fetched

DRIVERS = Path(__file__).parent / "drivers"
TIMEOUT = 400.0
"""Seconds for one step of an installation."""


class ToolchainMissing(Exception):
    """Clients of a kind cannot be run here; says why."""


def command(client: Client | Producer) -> Sequence[str]:
    """Return the command of a client's driver, without the URL. Raises: ToolchainMissing."""
    return TOOLCHAINS[client.toolchain](client.driver)


@cache
def _python() -> Path:
    _needed("curl")
    requirements = DRIVERS / "python" / "requirements.txt"

    def fetch(folder: Path) -> None:
        venv.create(folder, with_pip=True, clear=True)
        _run(str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(requirements))

    return fetched("clients-python", [requirements], fetch) / "bin" / "python"


@cache
def _node() -> Path:
    _needed("node", "npm")
    manifests = [DRIVERS / "node" / name for name in ("package.json", "package-lock.json", ".npmrc")]

    def fetch(folder: Path) -> None:
        for manifest in manifests:
            shutil.copy(manifest, folder)
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)

    folder = fetched("clients-node", manifests, fetch)
    for driver in (DRIVERS / "node").glob("*.mjs"):
        # Node looks for packages from where a script is.
        shutil.copy(driver, folder)
    return folder


@cache
def _jars() -> Path:
    _needed("java", "javac", "mvn")
    manifest = DRIVERS / "java" / "pom.xml"

    def fetch(folder: Path) -> None:
        _run("mvn", "-q", "-B", "-f", str(manifest), "dependency:copy-dependencies", f"-DoutputDirectory={folder}")

    return fetched("clients-java", [manifest], fetch)


@cache
def _go() -> Path:
    _needed("go")
    sources = [DRIVERS / "go" / name for name in ("go.mod", "go.sum", "main.go", "producer/main.go")]

    def fetch(folder: Path) -> None:
        _run("go", "build", "-o", str(folder / "r3labs"), ".", cwd=DRIVERS / "go")
        _run("go", "build", "-o", str(folder / "producer"), "./producer", cwd=DRIVERS / "go")

    return fetched("clients-go", sources, fetch)


BROWSERS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "firefox": ("firefox-esr", "firefox")}
"""Names of their programs."""


def browser(name: str, driver: str) -> Sequence[str]:
    """Return the command of a browser's driver. Raises: ToolchainMissing."""
    path = next(filter(None, map(shutil.which, BROWSERS[name])), None)
    if path is None:
        raise ToolchainMissing(f"there is no {name}")
    return ["env", f"BROWSER={name}", f"BROWSER_PATH={path}", "node", str(_node() / f"{driver}.mjs")]


TOOLCHAINS: Mapping[str, Callable[[str], Sequence[str]]] = {
    "python": lambda driver: [str(_python()), str(_script(driver))],
    "node": lambda driver: ["node", str(_node() / f"{driver}.mjs")],
    "chromium": partial(browser, "chromium"),
    "firefox": partial(browser, "firefox"),
    "java": lambda driver: ["java", "-cp", f"{_jars()}/*", str(DRIVERS / "java" / f"{driver}.java")],
    "go": lambda driver: [str(_go() / driver)],
}


def _script(driver: str) -> Path:
    name = driver if driver.endswith("_producer") else f"{driver}_client"
    return DRIVERS / "python" / f"{name}.py"


def _needed(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise ToolchainMissing(f"there is no {program}")


def _run(*arguments: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        arguments, cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if done.returncode:
        raise ToolchainMissing(f"{' '.join(arguments)}: {(done.stdout + done.stderr)[-2000:]}")
