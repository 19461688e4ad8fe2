"""The first minute of somebody who has no checkout: the wheel, installed, in an empty directory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import tarfile
import textwrap
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.package import Built, Installed, build, install
from tests.support.processes import ROOT

PORTS = {"gateway.port": "0", "intake.port": "0", "admin.port": "0"}
HANG_GUARD = 60.0


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(built.wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def curl() -> None:
    """What the printed lines call; without it the test is skipped, in continuous integration it fails."""
    if shutil.which("curl") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no curl")
        pytest.skip("there is no curl")


class Dev:
    """`eventstreams dev` as installed, and what it printed."""

    def __init__(self, process: asyncio.subprocess.Process, said: str) -> None:
        self.process = process
        self.said = said
        self.commands = pasted(said)

    @property
    def gateway(self) -> str:
        found = re.search(r"serving streams at (\S+)", self.said)
        assert found is not None
        return found[1]


def pasted(text: str) -> list[str]:
    """Return the commands among some lines that are set off: a backslash at the end joins the next."""
    return [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if re.match(r"  +(curl|event)", line)]


@asynccontextmanager
async def dev(
    installed: Installed, folder: Path, *arguments: str, settings: Mapping[str, str] = PORTS
) -> AsyncIterator[Dev]:
    """Run it while the context lasts; it must end in good order."""
    process = await asyncio.create_subprocess_exec(
        *("eventstreams", "dev", *arguments),
        cwd=folder,
        env=installed.environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Dev(process, await said(process))
        process.send_signal(signal.SIGINT)
        _, error = await asyncio.wait_for(process.communicate(), HANG_GUARD)
        assert process.returncode == 130
        assert b"Traceback" not in error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def said(process: asyncio.subprocess.Process) -> str:
    """Return what a command prints until it is ready."""
    assert process.stdout is not None
    assert process.stderr is not None
    text = ""
    async with asyncio.timeout(HANG_GUARD):
        async for line in process.stdout:
            text += line.decode()
            if line.startswith(b"Ctrl-C"):
                return text
        raise AssertionError(f"it ended with: {text}{(await process.stderr.read()).decode()}")


@asynccontextmanager
async def shell(command: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run a line that somebody pastes; yields its output."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"exec {command}"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(HANG_GUARD):
            yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def first_event(output: asyncio.StreamReader) -> dict[str, object]:
    """Return the first event of a stream, in either format."""
    async for line in output:
        text = line.decode().removeprefix("data: ")
        if text.startswith("{"):
            event: dict[str, object] = json.loads(text)
            return event
    raise AssertionError("the stream ended without an event")


def test_package_holds_licence_types_and_files(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel, tarfile.open(built.sdist) as sdist:
        in_wheel = set(wheel.namelist())
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}
        links = [member.name for member in sdist.getmembers() if member.issym() or member.islnk()]
    files = {path.relative_to(ROOT) for path in (ROOT / "eventstreams/web/static").rglob("*") if path.is_file()}
    config = {f"eventstreams/demo/{path.relative_to(ROOT)}" for path in (ROOT / "config").rglob("*.yaml")}
    wanted = {"eventstreams/py.typed", "intake/py.typed", *map(str, files), *config}
    assert wanted - in_wheel == set()
    assert {"LICENSE", "README.md", "pyproject.toml", *wanted} - in_sdist == set()
    assert any(re.fullmatch(r"eventstreams-.*\.dist-info/licenses/LICENSE", name) for name in in_wheel)
    assert {name.partition("/")[0].partition("-")[0] for name in in_wheel} == {"eventstreams", "intake"}
    assert links == []


def test_requirements_of_the_package_are_all_that_it_imports(installed: Installed, tmp_path: Path) -> None:
    required = (
        "from importlib.metadata import requires; print(*(r for r in requires('eventstreams') if 'extra' not in r))"
    )
    listed = installed.run(tmp_path, "python", "-c", required).stdout
    assert "confluent-kafka" in listed
    place = installed.run(tmp_path, "python", "-c", "import eventstreams; print(eventstreams.__file__)").stdout
    assert place.startswith(str(installed.bin.parent))
    version = installed.run(tmp_path, "eventstreams", "--version")
    assert (version.returncode, version.stderr) == (0, "")


async def test_dev_in_an_empty_directory_serves_the_demo(installed: Installed, tmp_path: Path, curl: None) -> None:
    async with dev(installed, tmp_path, "--rate", "50") as running:
        assert "5 streams (3 aliases) and 5 schemas from the demo in the package" in running.said
        assert "There is no configuration here, so this is the demo" in running.said
        assert f"log embedded:{tmp_path}/data/events.db" in running.said
        live, old, posted, post = running.commands
        for command, streams in ((live, ["recentchange"]), (old, ["recentchange", "page-create"])):
            async with shell(command) as output:
                meta = (await first_event(output))["meta"]
                assert isinstance(meta, dict)
                assert meta["stream"].removeprefix("mediawiki.") in streams
        async with shell(posted.replace("curl", "curl -i", 1)) as output:
            assert b"200" in await output.readline()
            async with shell(post) as answer:
                assert b"201" in await answer.readline()
            assert (await first_event(output))["test"] == "hello"
    assert os.listdir(tmp_path) == ["data"]
    async with (
        dev(installed, tmp_path) as again,
        shell(f"curl -N {again.gateway}/v2/stream/test.event?since=0") as kept,
    ):
        assert (await first_event(kept))["test"] == "hello"


@pytest.mark.parametrize("place", [".", "shop", "shops/the first one"])
async def test_first_configuration_works_from_outside_and_inside(
    installed: Installed, tmp_path: Path, place: str, curl: None
) -> None:
    wrote = installed.run(tmp_path, "eventstreams", "init", place)
    assert (wrote.returncode, wrote.stderr) == (0, "")
    folder = (tmp_path / place).resolve()
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["eventstreams.yaml", "schemas/example/greeting/1.0.0.yaml", "streams.yaml"]
    start, listen, post, *services = pasted(wrote.stdout)
    assert len(services) == 3
    for number, (begun_in, arguments) in enumerate(((tmp_path, start.split(" dev", 1)[1]), (folder, ""))):
        given = arguments.replace("'", "").replace("--config ", "--config=").strip()
        async with dev(installed, begun_in, *([given] if given else [])) as running:
            assert f"log embedded:{folder}/data/events.db" in running.said
            assert "1 stream from" in running.said
            assert "no demo traffic" in running.said
            said_listen, said_post = running.commands
            assert [re.sub(r":\d{4,5}/", "/", line) for line in (said_listen,)] == [re.sub(r":\d+/", "/", listen)]
            at_intake = re.search(r"http://[\d.]+:\d+", said_post)
            assert at_intake is not None
            post_here = re.sub(r"http://[\d.]+:\d+", at_intake[0], post)
            for command in (said_post, post_here):
                async with shell(command) as answer:
                    assert b"201" in await answer.readline()
            async with shell(f"{said_listen}?since=0") as output:
                events = [await first_event(output) for _ in range(2 + 2 * number)]
            assert {event["greeting"] for event in events} == {"hello"}
    again = installed.run(tmp_path, "eventstreams", "init", place)
    assert again.returncode == 2
    assert again.stderr.endswith("eventstreams.yaml is there already: nothing was written\n")


@pytest.mark.parametrize(
    "command",
    [
        ("serve",),
        ("intake",),
        ("serve", "--workers", "2"),
        ("intake", "--workers", "2"),
        ("streams", "list"),
        ("streams", "check"),
        ("streams", "apply"),
    ],
    ids=" ".join,
)
def test_command_without_configuration_says_how_to_begin(
    installed: Installed, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = installed.run(tmp_path, "eventstreams", *command)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    for words in ("no streams are configured", "eventstreams init DIR", "--config FILE"):
        assert words in sentence
    assert list(tmp_path.iterdir()) == []


async def test_first_lines_of_the_readme_work_as_they_stand(installed: Installed, tmp_path: Path, curl: None) -> None:
    block = re.search(r"^## Start\n(?:(?!    ).*\n)*((?:    .*\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert block is not None
    lines = textwrap.dedent(block[1]).strip().splitlines()
    assert lines[0].startswith("pip install ")
    commands = [line.partition("   #")[0].strip() for line in lines[1:]]
    assert [command.split()[:2] for command in commands] == [["eventstreams", "dev"], ["eventstreams", "init"]]
    wrote = installed.run(tmp_path, *shlex.split(commands[1]))
    assert wrote.returncode == 0, wrote.stderr
    async with dev(installed, tmp_path, *commands[0].split()[2:]) as running, shell(running.commands[0]) as output:
        assert "meta" in await first_event(output)
