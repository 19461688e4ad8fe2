"""Schema repositories: directories, base URLs, or several in order."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from eventstreams.errors import InvalidSchema, SchemaError, SchemaNotFound, SchemaUnavailable
from eventstreams.schemas.uri import SchemaUri

Schema = Mapping[str, Any]

MAX_BYTES = 4 * 1024 * 1024
VERSION = re.compile(r"(\d+\.\d+\.\d+)(?:\.yaml|\.json)?", re.ASCII)
SUFFIXES = ("", ".yaml", ".json")
RETRY_PAUSE = 0.1


class SchemaRepository(Protocol):
    """Where schemas come from."""

    async def load(self, uri: SchemaUri) -> Schema:
        """Return the document. Raises: SchemaNotFound, SchemaUnavailable, InvalidSchema."""
        ...

    async def versions(self, title: str) -> Sequence[str]:
        """Return a title's versions, ascending; empty where it is unknown or cannot be listed."""
        ...


def parse_document(text: str, uri: SchemaUri) -> Schema:
    """Read JSON or YAML 1.2: `yes` and `on` are strings, duplicate keys an error. Raises: InvalidSchema.

    Takes a tenth of a second for a large one: not for the event loop.
    """
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as exc:
        raise InvalidSchema(f"schema {uri} is no YAML or JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise InvalidSchema(f"schema {uri}: expected an object, found {type(document).__name__}")
    return document


class DirectoryRepository:
    """A directory with `<title>/X.Y.Z`, with or without .yaml or .json. Nothing outside of it is read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def load(self, uri: SchemaUri) -> Schema:
        """Return the document; `latest` is the highest version there is."""
        return await asyncio.to_thread(self._load, uri)

    def _load(self, uri: SchemaUri) -> Schema:
        return parse_document(self._read(uri), uri)

    def _read(self, uri: SchemaUri) -> str:
        version = uri.version
        if version == "latest":
            found = self._versions(uri.title)
            if not found:
                raise SchemaNotFound(f"no schema {uri} in {self._root}")
            version = found[-1]
        root = self._root.resolve()
        for suffix in SUFFIXES:
            path = (self._root / uri.title / (version + suffix)).resolve()
            if path.is_relative_to(root) and path.is_file():
                try:
                    return path.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError) as exc:
                    raise SchemaUnavailable(f"schema {uri} cannot be read from {self._root}: {exc}") from exc
        raise SchemaNotFound(f"no schema {uri} in {self._root}")

    def _versions(self, title: str) -> list[str]:
        try:
            names = [path.name for path in (self._root / title).iterdir()]
        except OSError:
            return []
        found = {match[1] for match in map(VERSION.fullmatch, names) if match}
        return sorted(found, key=lambda version: [int(part) for part in version.split(".")])

    async def versions(self, title: str) -> Sequence[str]:
        """Return the versions that the directory holds."""
        return await asyncio.to_thread(self._versions, title)


class HttpRepository:
    """A base URL before which URIs are put."""

    def __init__(self, base: str, http: httpx.AsyncClient) -> None:
        self._base = base.rstrip("/")
        self._http = http

    async def load(self, uri: SchemaUri) -> Schema:
        """Return the document; one more try after a network error or a 5xx."""
        for last in (False, True):
            try:
                return await self._get(uri)
            except SchemaUnavailable:
                if last:
                    raise
                await asyncio.sleep(RETRY_PAUSE)
        raise AssertionError("unreachable")

    async def _get(self, uri: SchemaUri) -> Schema:
        try:
            response = await self._http.get(f"{self._base}{uri}")
        except httpx.HTTPError as exc:
            raise SchemaUnavailable(f"schema {uri} at {self._base}: {exc!r}") from exc
        if response.status_code >= 500 or response.status_code == 429:
            raise SchemaUnavailable(f"schema {uri} at {self._base}: status {response.status_code}")
        if response.status_code != 200:
            raise SchemaNotFound(f"no schema {uri} at {self._base}: status {response.status_code}")
        if len(response.content) > MAX_BYTES:
            raise InvalidSchema(f"schema {uri} at {self._base}: more than {MAX_BYTES} bytes")
        return await asyncio.to_thread(parse_document, response.text, uri)

    async def versions(self, title: str) -> Sequence[str]:
        """Return nothing: a plain file server tells no versions."""
        return []


class ChainRepository:
    """Several repositories as one namespace: the first that has a schema wins."""

    def __init__(self, repositories: Sequence[SchemaRepository]) -> None:
        self._repositories = repositories

    async def load(self, uri: SchemaUri) -> Schema:
        """Return the first answer. One that is not available counts for more than one that has it not."""
        worst: SchemaError = SchemaNotFound(f"no schema {uri}: no repository is configured")
        for repository in self._repositories:
            try:
                return await repository.load(uri)
            except SchemaError as exc:
                if isinstance(worst, SchemaNotFound):
                    worst = exc
        raise worst

    async def versions(self, title: str) -> Sequence[str]:
        """Return the versions of the first repository that knows the title."""
        for repository in self._repositories:
            found = await repository.versions(title)
            if found:
                return found
        return []


def count_schemas(places: Sequence[str], most: int = 100_000) -> int | None:
    """Return how many titles these directories have; None where a place is none, or holds over `most` folders.

    Blocking.
    """
    titles: set[str] = set()
    for place in places:
        if not Path(place).is_dir():
            return None
        for folder, _, names in os.walk(place):
            most -= 1
            if most < 0:
                return None
            if any(map(VERSION.fullmatch, names)):
                titles.add(os.path.relpath(folder, place))
    return len(titles)
