"""Which settings file counts where none is named, and what `{here}` means in one."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

NAME = "eventstreams.yaml"
HERE = "{here}"
PLACES = ("log", "streams", "schemas", "kafka")
"""Settings that hold paths, kafka those of secrets and certificates."""

SPOOL = "spool"
"""One below `intake`."""


def settings_file() -> str | None:
    """Return the settings file of the working directory, None where there is none."""
    return NAME if Path(NAME).is_file() else None


def place(root: MappingNode, folder: Path) -> None:
    """Replace `{here}` in the paths of a settings file by the folder that it is in.

    Deliberate: relative paths without it stay those of the working directory, as in the environment.
    """
    for key, value in root.value:
        if key.value in PLACES:
            _place(value, folder)
        elif key.value == "intake" and isinstance(value, MappingNode):
            for name, inner in value.value:
                if name.value == SPOOL:
                    _place(inner, folder)


def _place(root: Node, folder: Path) -> None:
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        # An alias is the node that it stands for.
        seen.add(id(node))
        if isinstance(node, ScalarNode):
            node.value = node.value.replace(HERE, str(folder))
        elif isinstance(node, MappingNode):
            waiting += [value for _, value in node.value]
        elif isinstance(node, SequenceNode):
            waiting += node.value
