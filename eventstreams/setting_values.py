"""One value of a setting: what a text or a node of YAML means, by the type that is declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_origin

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from eventstreams.errors import ConfigurationError
from eventstreams.setting_words import Wanted, is_secret, nearest, shown
from eventstreams.settings_given import Source, named
from eventstreams.yaml_nodes import MISTAKES, TAG, compose, name, plain, scalar, text

Steps = tuple[str | int, ...]

NULLS = frozenset({"null", "Null", "NULL", "~"})


def sentence(path: Steps, wanted: object, place: str, value: str | None) -> str:
    """Return what is said of a value that is not as its setting wants it; without the value where it is a secret."""
    is_value = f" = {value}" if value is not None else ""
    return f"setting {'.'.join(map(str, path))}{is_value}: expected {wanted} ({place})"


class Value:
    """Reads one value by the type that is wanted, and notes where it and what it holds stand."""

    def __init__(
        self, places: dict[Steps, str], path: Steps, wanted: Wanted, source: Source, *, secret: bool = False
    ) -> None:
        self._places = places
        self._path = path
        self._wanted = wanted
        self._source = source
        self._secret = secret

    def read(self, node: Node) -> Any:
        """Return what a node means. Raises: ConfigurationError."""
        self._begin(node)
        wanted = self._wanted
        if isinstance(node, ScalarNode) and wanted.nullable and (node.value in NULLS or not node.value.strip()):
            return None
        if wanted.kind is Any:
            return self._plain(node)
        kind = wanted.kind
        if _is_union(wanted):
            kind = dict if isinstance(node, MappingNode) or str(node.value).lstrip().startswith("{") else list
            options = [Wanted(one) for one in wanted.arguments]
            self._wanted = next((one for one in options if one.kind is kind), options[0])
        if kind is list:
            return [self._inner(at).read(item) for at, item in enumerate(self._items(node))]
        if kind is dict:
            return {name(key): self._entry(key).read(value) for key, value in self.named(node)}
        if wanted.model is not None:
            return {name(key): self._field(key).read(value) for key, value in self.named(node)}
        return self._text(node)

    def read_property(self, node: Node) -> Any:
        """Return a text, or the map of `{file: PATH}`: that is read when it is used. Raises: ConfigurationError."""
        self._begin(node)
        path = self._file(node)
        return self._own_text(node, lines=True) if path is None else {"file": path}

    def _begin(self, node: Node) -> None:
        self._places[self._path] = self._source.at(node)
        if not (node.tag or "").startswith(TAG):
            # Of tags that YAML does not have, `!secret` for one, nobody here knows the meaning.
            raise self._unfit(node)

    def _inner(self, step: str | int) -> Value:
        inner = self._wanted.inner(step)
        return Value(self._places, (*self._path, step), inner, self._source, secret=self._secret or is_secret(inner))

    def _entry(self, key: Node) -> Value:
        return self._inner(name(key))

    def _field(self, key: Node) -> Value:
        fields = self._wanted.model.model_fields if self._wanted.model else {}
        step = name(key)
        if step not in fields:
            near = nearest(step, fields)
            dotted = ".".join(map(str, (*self._path, step)))
            hint = f"; the nearest is {near}" if near else ""
            raise ConfigurationError(f"setting {dotted}: there is no such setting{hint} ({self._source.at(key)})")
        return self._inner(step)

    def named(self, node: Node, *, null: bool = False) -> Iterator[tuple[Node, Node]]:
        """Yield what a map holds; an empty text is an empty map, and any other text is YAML."""
        if isinstance(node, ScalarNode):
            if not node.value.strip() or (null and node.value in NULLS):
                return
            node = self._composed(node)
        if not isinstance(node, MappingNode):
            raise self._unfit(node)
        yield from named(node, self._source)

    def _items(self, node: Node) -> list[Node]:
        """Return the items of a list: a text in brackets is YAML, another one holds them between commas."""
        if isinstance(node, SequenceNode):
            return list(node.value)
        if not isinstance(node, ScalarNode):
            return [node]
        given = node.value.strip()
        if given in NULLS:
            raise self._unfit(node)
        if given.startswith("["):
            return self._items(self._composed(node))
        if given.startswith("{") and given.endswith("}"):
            return [node]
        return [scalar(part.strip(), node) for part in given.split(",") if part.strip()]

    def _composed(self, node: ScalarNode) -> Node:
        try:
            composed = compose(node.value)
        except MISTAKES as exc:
            raise self._unfit(node) from exc
        if composed is None or isinstance(composed, ScalarNode):
            raise self._unfit(node)
        self._source = Source(self._source.at(node))
        return composed

    def _plain(self, node: Node) -> Any:
        try:
            return plain(node)
        except (ConfigurationError, RecursionError) as exc:
            raise self._unfit(node) from exc

    def _text(self, node: Node) -> str:
        path = self._file(node)
        if path is None:
            return self._own_text(node)
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or "expected UTF-8"
            dotted = ".".join(map(str, self._path))
            raise ConfigurationError(
                f"setting {dotted}: file {shown(path)} cannot be read: {reason} ({self._source.at(node)})"
            ) from exc

    def _own_text(self, node: Node, *, lines: bool = False) -> str:
        if not isinstance(node, ScalarNode) or node.value in NULLS:
            raise self._unfit(node)
        try:
            found = text(node)
        except ConfigurationError as exc:
            raise self._unfit(node) from exc
        if "\0" in found or (not lines and any(one < " " or one == "\x7f" for one in found)):
            raise self._unfit(node)
        return found

    def _file(self, node: Node) -> str | None:
        """Return the path of `{file: PATH}`; None for what has no braces."""
        if isinstance(node, ScalarNode):
            given = node.value.strip()
            if not (given.startswith("{") and given.endswith("}")):
                return None
            node = self._composed(node)
        if isinstance(node, MappingNode) and len(node.value) == 1:
            (key, value), *_ = node.value
            if key.value == "file" and isinstance(value, ScalarNode) and value.value and value.value not in NULLS:
                return self._own_text(value)
        raise self._unfit(node)

    def _unfit(self, node: Node) -> ConfigurationError:
        found: Any = None
        if not self._secret:
            try:
                found = plain(node) if not isinstance(node, ScalarNode) else node.value
            except (ConfigurationError, RecursionError):
                found = "..."
        value = None if self._secret else shown(found)
        return ConfigurationError(sentence(self._path, self._wanted, self._source.at(node), value))


def _is_union(wanted: Wanted) -> bool:
    return get_origin(wanted.type) in (Union, UnionType)
