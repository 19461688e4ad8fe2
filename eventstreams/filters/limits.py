"""What a filter may not be: limits that make one evaluation linear in its nodes times the event's size.

The library bounds neither time nor memory: a doubling `map` eats all memory, a regular expression may hold the process
for a minute. Spec filters 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import re2

from eventstreams.errors import FilterError
from eventstreams.filters.tree import Node, Tree

EVENT = "event"
MATCHES = "matches"
ADD = "_+_"
INDEX = "_[_]"


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """For all filters of one request together, but for what is of one pattern."""

    characters: int = 4096
    nodes: int = 500
    """Elements of list literals have a limit of their own."""
    list_elements: int = 1000
    additions: int = 30
    pattern_characters: int = 256
    pattern_instructions: int = 300
    all_instructions: int = 1000
    nested_comprehensions: int = 2


Refuse = Callable[[Node, str], FilterError]


def check(tree: Tree, text: str, limits: FilterLimits) -> None:
    """Check one compiled filter. Raises: FilterError with the limit, the value and the place."""

    def refuse(node: Node, words: str) -> FilterError:
        line, column = tree.place(node, text)
        return FilterError(f"filter {_shown(text)}: line {line}, column {column}: {words}")

    nodes = list(tree.root.walk())
    literals = sum(child.kind == "const" for node in nodes if node.kind == "list" for child in node.children)
    if len(nodes) - literals > limits.nodes:
        raise refuse(tree.root, f"{len(nodes) - literals} nodes, at most {limits.nodes} are taken")
    additions = [node for node in nodes if node.kind == "call" and node.name == ADD and not _is_filter_step(node)]
    if len(additions) > limits.additions:
        raise refuse(additions[0], f"{len(additions)} additions, at most {limits.additions} are taken")
    for node in nodes:
        _check_literal(node, limits, refuse)
    _check_patterns(nodes, limits, refuse)
    _check_scope(tree.root, frozenset({EVENT}), refuse)
    _check_comprehensions(tree.root, EVENT, 0, limits, refuse)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")


def _check_literal(node: Node, limits: FilterLimits, refuse: Refuse) -> None:
    if node.kind == "const" and isinstance(node.value, str) and "\0" in node.value:
        raise refuse(node, "a text with U+0000 cannot be compared")
    if node.kind in ("select", "has") and "\0" in node.name:
        raise refuse(node, "a name with U+0000 cannot be looked up")
    if node.kind == "list" and len(node.children) > limits.list_elements:
        raise refuse(node, f"a list of {len(node.children)} elements, at most {limits.list_elements} are taken")
    if node.kind == "message":
        raise refuse(node, f"{node.name} literals are not taken")


def _check_patterns(nodes: list[Node], limits: FilterLimits, refuse: Refuse) -> None:
    total = 0
    for node in nodes:
        if node.kind != "call" or node.name != MATCHES:
            continue
        pattern = node.children[-1]
        if pattern.kind != "const" or not isinstance(pattern.value, str):
            raise refuse(pattern, "the pattern of matches must be a literal text")
        if len(pattern.value) > limits.pattern_characters:
            words = f"a pattern of {len(pattern.value)} characters, at most {limits.pattern_characters} are taken"
            raise refuse(pattern, words)
        size = _instructions(pattern, refuse)
        total += size
        if size > limits.pattern_instructions:
            raise refuse(pattern, f"a pattern of {size} instructions, at most {limits.pattern_instructions} are taken")
    if total > limits.all_instructions:
        raise refuse(nodes[0], f"patterns of {total} instructions, at most {limits.all_instructions} are taken")


def _instructions(pattern: Node, refuse: Refuse) -> int:
    options = re2.Options()
    options.log_errors = False
    try:
        return int(re2.compile(pattern.value, options).programsize)
    except re2.error as exc:
        words = exc.args[0].decode("utf-8", "replace") if isinstance(exc.args[0], bytes) else str(exc)
        raise refuse(pattern, f"no regular expression as RE2 takes them: {words}") from exc


def _check_scope(node: Node, names: frozenset[str], refuse: Refuse) -> None:
    """Refuse names of types: only `event` and the variables of macros are values here."""
    if node.kind == "ident" and node.name not in names:
        raise refuse(node, f"{node.name} is no value: only fields of event are")
    if node.kind != "comprehension":
        for child in node.children:
            _check_scope(child, names, refuse)
        return
    source, *body = node.children
    _check_scope(source, names, refuse)
    for child in body:
        _check_scope(child, names | {node.name, node.accumulator}, refuse)


def _check_comprehensions(node: Node, variable: str, depth: int, limits: FilterLimits, refuse: Refuse) -> None:
    """Hold comprehensions to paths, two levels, and bodies about their own variable: the cost stays linear."""
    if node.kind == "comprehension":
        depth += 1
        if depth > limits.nested_comprehensions:
            raise refuse(node, f"macros are nested {depth} times, at most {limits.nested_comprehensions} are taken")
        source, initial, _, step, _ = node.children
        if _root(source) != variable:
            raise refuse(source, f"a macro goes over a path of {variable} only")
        if initial.kind == "list" and not _keeps_elements(step, node):
            raise refuse(node, "map is not taken: exists, all, exists_one and filter are")
        for child in node.children[1:]:
            _check_body(child, node, refuse)
        variable = node.name
        children = node.children[1:]
    else:
        children = node.children
    for child in children:
        _check_comprehensions(child, variable, depth, limits, refuse)


def _check_body(node: Node, comprehension: Node, refuse: Refuse) -> None:
    own = {comprehension.name, comprehension.accumulator}
    if node.kind == "comprehension":
        source = node.children[0]
        if _root(source) != comprehension.name:
            raise refuse(source, f"a macro goes over a path of {comprehension.name} only")
        return
    if node.kind == "ident" and node.name not in own:
        raise refuse(node, f"within a macro only its own variable {comprehension.name} may be used, not {node.name}")
    for child in node.children:
        _check_body(child, comprehension, refuse)


def _root(node: Node) -> str | None:
    """Return the variable at the root of a path, None for anything else."""
    while node.kind == "select" or (node.kind == "call" and node.name == INDEX and node.children[1].kind == "const"):
        node = node.children[0]
    return node.name if node.kind == "ident" else None


def _keeps_elements(step: Node, comprehension: Node) -> bool:
    """Whether a step that builds a list only keeps elements as they are (`filter`), and makes none (`map`)."""
    return (
        step.kind == "call"
        and step.name == "_?_:_"
        and _is_filter_step(step.children[1])
        and step.children[1].children[1].children[0].name == comprehension.name
    )


def _is_filter_step(node: Node) -> bool:
    """Whether this is `accumulator + [variable]`, as the macro `filter` expands to."""
    if node.kind != "call" or node.name != ADD or len(node.children) != 2:
        return False
    left, right = node.children
    return (
        left.kind == "ident"
        and left.name == "@result"
        and right.kind == "list"
        and len(right.children) == 1
        and right.children[0].kind == "ident"
    )
