"""`eventstreams init`: what it writes, and what it leaves alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from eventstreams.catalog.load import load_catalog
from eventstreams.cli import main
from eventstreams.init_command import EVENT, OURS, STREAM, starter_files
from eventstreams.schemas.formats import formats
from eventstreams.schemas.repository import DirectoryRepository
from eventstreams.schemas.uri import parse_schema_uri
from eventstreams.schemas.validation import Validators
from eventstreams.settings import Settings, load_settings
from eventstreams.settings_file import NAME, settings_file


def init(folder: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["init", str(folder)])
    return result.exit_code, result.output


def test_settings_that_are_written_are_the_defaults_but_for_their_places(tmp_path: Path) -> None:
    assert init(tmp_path)[0] == 0
    written = load_settings(str(tmp_path / NAME)).model_dump()
    default = Settings().model_dump()
    assert {name for name in default if written[name] != default[name]} == set(OURS)
    assert written["schemas"] == [f"{tmp_path}/schemas"]


def test_every_setting_is_there_to_be_uncommented(tmp_path: Path) -> None:
    text = starter_files()[NAME]
    (tmp_path / NAME).write_text(re.sub(r"^#(?=\S|  \w+:)", "", text, flags=re.MULTILINE))
    uncommented = load_settings(str(tmp_path / NAME)).model_dump()
    default = Settings().model_dump()
    assert {name for name in default if uncommented[name] != default[name]} == set(OURS)
    names = re.findall(r"^#?(\w+):", text, re.MULTILINE)
    assert names == list(Settings.model_fields)


async def test_first_stream_has_a_schema_and_an_example_that_is_valid(tmp_path: Path) -> None:
    assert init(tmp_path)[0] == 0
    (stream,) = load_catalog(str(tmp_path / "streams.yaml")).all()
    repository = DirectoryRepository(tmp_path / "schemas")
    uri = f"/{stream.schema_title}/1.0.0"
    schema = await repository.load(parse_schema_uri(uri))
    assert (schema["title"], schema["$id"]) == (stream.schema_title, uri)
    validator = await Validators(repository, formats("strict")).get(uri)
    assert [validator.is_valid(example) for example in schema["examples"]] == [True]
    assert validator.is_valid(json.loads(EVENT))
    assert not validator.is_valid({**schema["examples"][0], "greeting": 1})
    assert json.loads(EVENT)["meta"]["stream"] == schema["examples"][0]["meta"]["stream"] == stream.name == STREAM


@pytest.mark.parametrize("name", sorted(starter_files()))
def test_nothing_is_overwritten_and_then_nothing_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    code, output = init(tmp_path)
    assert (code, output) == (2, f"eventstreams: {tmp_path / name} is there already: nothing was written\n")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_other_files_of_a_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert init(tmp_path)[0] == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("in_the_way", ["folder", "folder/schemas"])
def test_folder_that_cannot_be_made_is_one_sentence_and_leaves_nothing(tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("a file")
    code, output = init(tmp_path / "folder")
    assert code == 2
    assert re.fullmatch(r"eventstreams: \S+ cannot be written: (Not a directory|File exists)\n", output)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / in_the_way]


def test_settings_file_of_the_working_directory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings_file() is None
    assert init(Path())[0] == 0
    assert settings_file() == NAME
    listed = CliRunner().invoke(main, ["streams", "list"])
    assert (listed.exit_code, listed.output) == (0, "example.greeting\texample/greeting\texample.greeting\n")
    named = CliRunner().invoke(main, ["streams", "list", "--config", "other.yaml"])
    assert "settings file other.yaml cannot be read" in named.output
