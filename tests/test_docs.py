"""The documentation names everything there is, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from ruamel.yaml import YAML

import eventstreams.errors
from eventstreams.cli import main
from eventstreams.errors import EventStreamsError
from eventstreams.metrics import Metrics, WorkerMetrics
from eventstreams.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def first_cells(page: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", (DOCS / page).read_text(), re.MULTILINE)


def errors(root: type[EventStreamsError]) -> Iterator[type[EventStreamsError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == eventstreams.errors.__name__:
            yield from errors(child)


def test_every_metric_is_documented_and_nothing_else() -> None:
    families = [*Metrics().registry.collect(), *WorkerMetrics().registry.collect()]
    names = [f.name + ("_total" if f.type == "counter" else "") for f in families]
    assert sorted(first_cells("metrics.md")) == sorted(names)


def test_every_error_is_documented_with_its_status() -> None:
    text = (DOCS / "errors.md").read_text()
    rows = {f"| `{error.code}` | {error.status} | `{error.__name__}` |" for error in errors(EventStreamsError)}
    assert rows == set(re.findall(r"^\| `\w+` \| \d+ \| `\w+` \|", text, re.MULTILINE))


@pytest.mark.parametrize("module", ["eventstreams/app.py", "intake/app.py", "eventstreams/asgi.py"])
def test_every_route_is_documented(module: str) -> None:
    source = (ROOT / module).read_text()
    routes = set(re.findall(r'"(/(?:v\d/|_info|rc|robots|metrics|healthz|readyz)[\w./-]*)"', source))
    assert routes
    text = (DOCS / "routes.md").read_text()
    assert [route for route in routes if route.rstrip("/") not in text] == []


def test_every_command_is_in_the_readme_and_has_an_example() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = {name: command for name, command in main.commands.items() if not command.hidden}
    for name, command in shown.items():
        assert f"eventstreams {name}" in readme
        subcommands = getattr(command, "commands", {})
        for path in [[name, sub] for sub in subcommands] or [[name]]:
            assert "Example: " in CliRunner().invoke(main, [*path, "--help"]).output


def test_sample_settings_file_holds_every_setting_with_its_default() -> None:
    path = ROOT / "config" / "eventstreams.yaml"
    assert load_settings(str(path)).model_dump() == Settings().model_dump()
    sample = YAML(typ="safe", pure=True).load(path.read_text())
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            assert list(sample[name]) == list(type(default).model_fields)
        else:
            assert name in sample


def test_changelog_and_pages_are_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in sorted(path.name for path in DOCS.glob("*.md")):
        assert f"docs/{page}" in readme
