"""The syntax tree of a compiled expression, read from its serialised form (cel-spec `syntax.proto`, `checked.proto`).

The library gives no other way to its tree, and no package ships the message classes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

VALUE_OF_ANY = 2
EXPR, SOURCE_INFO = 4, 5
POSITIONS = 4
CONST, IDENT, SELECT, CALL, LIST, STRUCT, COMPREHENSION = 3, 4, 5, 6, 7, 8, 9


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its kind, what names it, its children. `id` finds its place in the text."""

    id: int
    kind: str
    """const, ident, select, has, call, list, map, message or comprehension."""
    name: str = ""
    """Of an ident its name, of a select or has the field, of a call the function, of a comprehension its variable."""
    value: Any = None
    """Of a const its value."""
    children: tuple[Node, ...] = ()
    """Select, has: the operand. Call: the target if any, then arguments. Map: keys and values by turns.
    Comprehension: range, initial value, condition, step, result."""
    accumulator: str = ""

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children

    def shape(self) -> Any:
        """Return what two equal expressions have in common: the tree without ids."""
        value = (type(self.value).__name__, repr(self.value))
        return self.kind, self.name, value, self.accumulator, tuple(child.shape() for child in self.children)


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree, and where in the text each node stands (an offset in code points)."""

    root: Node
    offsets: Mapping[int, int] = field(default_factory=dict)

    def place(self, node: Node, text: str) -> tuple[int, int]:
        """Return line and column of a node, from 1."""
        offset = self.offsets.get(node.id, 0)
        before = text[:offset]
        return before.count("\n") + 1, offset - before.rfind("\n")


class _Field(NamedTuple):
    number: int
    value: Any


def parse_tree(serialised: bytes) -> Tree:
    """Read `Expression.serialize()`: an Any that holds a CheckedExpr."""
    checked = _only(serialised, VALUE_OF_ANY)
    offsets: dict[int, int] = {}
    for entry in _fields(_only(checked, SOURCE_INFO)):
        if entry.number == POSITIONS:
            pair = dict(_fields(entry.value))
            offsets[pair.get(1, 0)] = pair.get(2, 0)
    return Tree(_node(_only(checked, EXPR)), offsets)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def _fields(data: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 1:
            value, at = data[at : at + 8], at + 8
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            value, at = data[at : at + 4], at + 4
        yield _Field(number, value)


def _only(data: bytes, number: int) -> bytes:
    return next((found.value for found in _fields(data) if found.number == number), b"")


def _text(data: bytes, number: int) -> str:
    return _only(data, number).decode("utf-8", "replace")


def _node(data: bytes) -> Node:
    identity = 0
    kind, body = 0, b""
    for number, value in _fields(data):
        if number == 2:
            identity = value
        else:
            kind, body = number, value
    node: Node = _READERS[kind](identity, body)
    return node


def _const(identity: int, body: bytes) -> Node:
    for number, value in _fields(body):
        return Node(identity, "const", value=_CONSTANTS[number](value))
    return Node(identity, "const")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


class Unsigned(int):
    """An unsigned literal: `1u` is another expression than `1`."""


_CONSTANTS: Mapping[int, Any] = {
    1: lambda value: None,
    2: bool,
    3: _signed,
    4: Unsigned,
    5: lambda value: struct.unpack("<d", value)[0],
    6: lambda value: value.decode("utf-8", "replace"),
    7: bytes,
}


def _select(identity: int, body: bytes) -> Node:
    tested = any(number == 3 and value for number, value in _fields(body))
    return Node(identity, "has" if tested else "select", _text(body, 2), children=(_node(_only(body, 1)),))


def _call(identity: int, body: bytes) -> Node:
    target = [_node(value) for number, value in _fields(body) if number == 1]
    arguments = [_node(value) for number, value in _fields(body) if number == 3]
    return Node(identity, "call", _text(body, 2), children=(*target, *arguments))


def _list(identity: int, body: bytes) -> Node:
    return Node(identity, "list", children=tuple(_node(value) for number, value in _fields(body) if number == 1))


def _struct(identity: int, body: bytes) -> Node:
    name = _text(body, 1)
    children: list[Node] = []
    for number, entry in _fields(body):
        if number == 2:
            children += [_node(value) for part, value in _fields(entry) if part in (3, 4)]
    return Node(identity, "message" if name else "map", name, children=tuple(children))


def _comprehension(identity: int, body: bytes) -> Node:
    children = tuple(_node(_only(body, number)) for number in (2, 4, 5, 6, 7))
    return Node(identity, "comprehension", _text(body, 1), children=children, accumulator=_text(body, 3))


_READERS: Mapping[int, Any] = {
    0: lambda identity, body: Node(identity, "const"),
    CONST: _const,
    IDENT: lambda identity, body: Node(identity, "ident", _text(body, 1)),
    SELECT: _select,
    CALL: _call,
    LIST: _list,
    STRUCT: _struct,
    COMPREHENSION: _comprehension,
}
