"""Settings as they are given: names and values from a file, the environment the command line, and where each stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node

from eventstreams.errors import ConfigurationError
from eventstreams.setting_words import shown
from eventstreams.settings_file import place
from eventstreams.yaml_nodes import MISTAKES, compose, mistake, name, pairs, plain, scalar

PREFIX = "EVENTSTREAMS_"
NAME = re.compile(r"[A-Za-z0-9_.-]*")
CLUSTER_NAME = re.compile(r"\w*SERVICE_(HOST|PORT\w*)|(\w+_)?PORT(_\d+_(TCP|UDP|SCTP)\w*)?", re.ASCII)
"""What Kubernetes puts into the environment of each pod for a service named `eventstreams` or `eventstreams-...`."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where values come from: a file, whose lines tell more, or one text of the environment or the command line."""

    words: str
    is_file: bool = False

    def at(self, node: Node | None) -> str:
        """Return where a value stands, for messages."""
        mark = getattr(node, "start_mark", None)
        return f"{self.words}:{mark.line + 1}" if self.is_file and mark is not None else self.words


class Given(NamedTuple):
    """One setting, or a section of them, as it is given."""

    name: str
    """Dotted, as in `gateway.port`."""
    node: Node
    source: Source
    key: Node | None = None
    """Where the name stands, in a file."""

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return self.source.at(self.key or self.node)


def from_file(path: str) -> Iterator[Given]:
    """Yield the settings of a YAML file. Raises: ConfigurationError for one that cannot be read or is no YAML."""
    try:
        root = compose(Path(path).read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"settings file {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"settings file {path} is no YAML: expected UTF-8 from byte {exc.start} on") from exc
    except MISTAKES as exc:
        line, words = mistake(exc)
        where = path if line is None else f"{path}:{line}"
        raise ConfigurationError(f"settings file {where} is no YAML: {words}") from exc
    if root is None:
        return
    if not isinstance(root, MappingNode):
        raise ConfigurationError(f"settings file {path}: expected settings by name, found {shown(plain(root))}")
    place(root, Path(path).parent)
    source = Source(path, is_file=True)
    for key, node in named(root, source):
        yield Given(name(key), node, source, key)


def named(node: MappingNode, source: Source) -> Iterator[tuple[Node, Node]]:
    """Yield names and values. Raises: ConfigurationError for a name that is there twice, or is none."""
    own: set[str] = set()
    for key, _ in node.value:
        try:
            text = name(key)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{exc} ({source.at(key)})") from exc
        if text in own:
            raise ConfigurationError(f"setting {text}: it is given twice ({source.at(key)})")
        own.add(text)
    yield from pairs(node)


def from_environment(environment: Mapping[str, str]) -> Iterator[Given]:
    """Yield the settings of the environment: `EVENTSTREAMS_GATEWAY__PORT` is `gateway.port`. Sections come first."""
    for variable in sorted(environment):
        upper, value = variable.upper(), environment[variable]
        if upper.startswith(PREFIX) and not _is_of_cluster(upper.removeprefix(PREFIX), value):
            dotted = upper.removeprefix(PREFIX).lower().replace("__", ".")
            yield Given(dotted, scalar(value), Source(variable))


def _is_of_cluster(rest: str, value: str) -> bool:
    """Whether Kubernetes tells of a service with this; `EVENTSTREAMS_GATEWAY_PORT=1` is a mistake of the user's."""
    if "__" in rest or CLUSTER_NAME.fullmatch(rest) is None:
        return False
    return not rest.endswith("PORT") or "SERVICE_" in rest or "://" in value


def variable(dotted: str) -> str:
    """Return the environment's name of a setting."""
    return PREFIX + dotted.upper().replace(".", "__")


def from_assignments(assignments: Sequence[str]) -> Iterator[Given]:
    """Yield the settings of the command line, `NAME=VALUE` each. Raises: ConfigurationError for another form."""
    for assignment in assignments:
        dotted, equals, value = assignment.partition("=")
        whole = NAME.match(dotted)
        if not equals or not dotted or whole is None or whole[0] != dotted:
            # What is behind the name may be a secret.
            begun = whole[0] if whole is not None else ""
            raise ConfigurationError(f"--set {begun or shown('')}: expected NAME=VALUE, as in --set gateway.port=8092")
        yield Given(dotted, scalar(value), Source("--set"))
