"""Repositories: what is found where, and that nothing outside is read."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from eventstreams.errors import InvalidSchema, SchemaNotFound, SchemaUnavailable
from eventstreams.schemas.repository import ChainRepository, DirectoryRepository, HttpRepository
from eventstreams.schemas.uri import SchemaUri

A = SchemaUri("a/b", "1.0.0")


def put(root: Path, name: str, text: str) -> DirectoryRepository:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return DirectoryRepository(root)


@pytest.mark.parametrize("suffix", ["", ".yaml", ".json"])
async def test_directory_finds_each_spelling(tmp_path: Path, suffix: str) -> None:
    repository = put(tmp_path, "a/b/1.0.0" + suffix, '{"title": "a/b"}')
    assert await repository.load(A) == {"title": "a/b"}


async def test_latest_is_the_highest_version_by_number(tmp_path: Path) -> None:
    put(tmp_path, "a/b/1.9.0.yaml", "n: 9")
    repository = put(tmp_path, "a/b/1.10.0.yaml", "n: 10")
    assert await repository.load(SchemaUri("a/b", "latest")) == {"n": 10}
    assert await repository.versions("a/b") == ["1.9.0", "1.10.0"]
    assert await repository.versions("nope") == []


async def test_yaml_is_of_version_1_2(tmp_path: Path) -> None:
    repository = put(tmp_path, "a/b/1.0.0.yaml", "enum: [yes, on, true]\nmaximum: 1e3\n")
    assert await repository.load(A) == {"enum": ["yes", "on", True], "maximum": 1000.0}


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "[1]", "a: ["])
async def test_what_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSchema, match=r"schema /a/b/1\.0\.0"):
        await put(tmp_path, "a/b/1.0.0", text).load(A)


async def test_links_out_of_the_directory_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a: 1")
    repository = put(tmp_path / "root", "a/b/2.0.0", "{}")
    (tmp_path / "root" / "a" / "b" / "1.0.0").symlink_to(tmp_path / "secret")
    with pytest.raises(SchemaNotFound):
        await repository.load(A)


async def test_first_repository_that_has_it_wins(tmp_path: Path) -> None:
    one = put(tmp_path / "1", "a/b/1.0.0", "n: 1")
    two = put(tmp_path / "2", "a/b/1.0.0", "n: 2")
    put(tmp_path / "2", "a/b/2.0.0", "n: 22")
    chain = ChainRepository([one, two])
    assert await chain.load(A) == {"n": 1}
    assert await chain.load(SchemaUri("a/b", "2.0.0")) == {"n": 22}
    with pytest.raises(SchemaNotFound):
        await chain.load(SchemaUri("a/b", "3.0.0"))


async def test_http_repository_tries_a_failing_server_once_more() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path == "/base/a/b/1.0.0":
            return httpx.Response(503) if len(asked) == 1 else httpx.Response(200, text="title: a/b")
        return httpx.Response(404 if request.url.path.endswith("404") else 500)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        repository = HttpRepository("http://schemas/base/", http)
        assert await repository.load(A) == {"title": "a/b"}
        assert asked == ["/base/a/b/1.0.0"] * 2
        with pytest.raises(SchemaUnavailable, match="status 500"):
            await repository.load(SchemaUri("c", "1.0.0"))
        with pytest.raises(SchemaNotFound, match="status 404"):
            await repository.load(SchemaUri("d", "404"))
