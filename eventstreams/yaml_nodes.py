"""YAML 1.2 as nodes, which know their lines; what is wrong with a text is told in our words, not in the parser's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from eventstreams.errors import ConfigurationError

TAG = "tag:yaml.org,2002:"
TEXT, NULL, MERGE = TAG + "str", TAG + "null", TAG + "merge"

MISTAKES = (YAMLError, ValueError, RecursionError, NotImplementedError)
"""What the parser raises for a text that is no YAML, or nested too deep."""


def compose(text: str) -> Node | None:
    """Return the root of a document, None for an empty one. Raises: one of MISTAKES."""
    return YAML(typ="safe", pure=True).compose(text)  # type: ignore[no-any-return]


def mistake(exc: BaseException) -> tuple[int | None, str]:
    """Return the line of one of MISTAKES (from 1; None where there is none to tell), and what is wrong there."""
    if isinstance(exc, RecursionError):
        return None, "it is nested too deep"
    if not isinstance(exc, MarkedYAMLError) or (mark := exc.problem_mark or exc.context_mark) is None:
        return None, "it holds characters or values that YAML does not have"
    if isinstance(exc, DuplicateKeyError):
        return mark.line + 1, "a name is there twice"
    if "'\\t'" in str(exc.problem):
        return mark.line + 1, "a tab where blanks are expected"
    return mark.line + 1, f"it cannot be read on from column {mark.column + 1}"


def scalar(text: str, like: Node | None = None) -> ScalarNode:
    """Return a text as a node, standing where another one does."""
    return ScalarNode(TEXT, text, getattr(like, "start_mark", None))


def pairs(node: MappingNode) -> Iterator[tuple[Node, Node]]:
    """Yield names and values, those of `<<` first: what is given itself goes over them."""
    for key, value in node.value:
        if key.tag == MERGE:
            for merged in value.value if isinstance(value, SequenceNode) else [value]:
                if isinstance(merged, MappingNode):
                    yield from pairs(merged)
    yield from ((key, value) for key, value in node.value if key.tag != MERGE)


def plain(node: Node) -> Any:
    """Return what YAML itself means by a node, with texts as the names of a map. Raises: ConfigurationError."""
    if isinstance(node, MappingNode):
        return {name(key): plain(value) for key, value in pairs(node)}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.value]
    read = YAML(typ="safe", pure=True).constructor
    means = {"bool": read.construct_yaml_bool, "int": read.construct_yaml_int, "float": read.construct_yaml_float}
    if node.tag == NULL:
        return None
    try:
        return means.get((node.tag or "").removeprefix(TAG), text)(node)
    except (ValueError, KeyError, IndexError) as exc:
        raise ConfigurationError(f"expected a number, true or false, found {node.value[:100]!r}") from exc


def name(node: Node) -> str:
    """Return a name in a map. Raises: ConfigurationError for what is a list or a map itself."""
    if not isinstance(node, ScalarNode):
        raise ConfigurationError("expected a text as a name, found a list or a map")
    return text(node)


def text(node: ScalarNode) -> str:
    """Return the text of a scalar; two escapes that JSON needs for one character are that character.

    Raises: ConfigurationError for half of one.
    """
    try:
        return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as exc:
        raise ConfigurationError("expected a text in Unicode") from exc
