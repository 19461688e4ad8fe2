"""Where stream configuration comes from: files, directories and URLs; and on which line something stands in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import orjson
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, SequenceNode

from eventstreams.addresses import reason
from eventstreams.errors import ConfigurationError
from eventstreams.setting_words import without_user
from eventstreams.yaml_nodes import MISTAKES, mistake

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
SCHEMES = ("http://", "https://")
TIMEOUT = httpx.Timeout(30.0, connect=5.0)

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed source: its name for messages, its text and what that holds."""

    name: str
    text: str
    content: Any

    def line(self, path: Sequence[str | int]) -> int:
        """Return the line (from 1) of what stands at `path`, or of the nearest above it."""
        # JSON is YAML: one parser tells the lines of both, slowly, and only when there is something to tell.
        node = _composed(self.text)
        line = 1
        for step in path:
            found = _step(node, step)
            if found is None:
                break
            mark, node = found
            line = mark.line + 1
        return line


@lru_cache(maxsize=2)
def _composed(text: str) -> Any:
    """Return the nodes of a text; made once for all that is told of it: a large one takes seconds."""
    return YAML(pure=True).compose(text)


def _step(node: Any, step: str | int) -> tuple[Any, Any] | None:
    if isinstance(node, MappingNode):
        return next(((key.start_mark, value) for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None


def read(sources: Sequence[str], headers: Mapping[str, str]) -> Iterator[Document]:
    """Yield the documents of files, directories (their files by name) and URLs, in order. Blocking.

    Raises: ConfigurationError, with the line where a text is no YAML.
    """
    for source in sources:
        if source.startswith(SCHEMES):
            yield _parse(without_user(source), _fetch(source, headers))
            continue
        path = Path(source.removeprefix("file://"))
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        for file in files:
            yield _parse(str(file), _text(file))


def _fetch(url: str, headers: Mapping[str, str]) -> str:
    try:
        response = httpx.get(url, headers=dict(headers), timeout=TIMEOUT, follow_redirects=True, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ConfigurationError(f"stream configuration {without_user(url)} cannot be fetched: {reason(exc)}") from exc
    if response.status_code != 200:
        raise ConfigurationError(
            f"stream configuration {without_user(url)} cannot be fetched: status {response.status_code}"
        )
    return response.text


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"stream configuration {file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(
            f"stream configuration {file} is no YAML or JSON: expected UTF-8 from byte {exc.start} on"
        ) from exc


def _parse(name: str, text: str) -> Document:
    try:
        return Document(name, text, orjson.loads(text))
    except orjson.JSONDecodeError:
        pass
    try:
        return Document(name, text, YAML(typ="safe", pure=True).load(text))
    except MISTAKES as exc:
        line, words = mistake(exc)
        where = name if line is None else f"{name}:{line}"
        raise ConfigurationError(f"stream configuration {where} is no YAML or JSON: {words}") from exc
