"""From CEL text to a filter. Equal filters are one object: compiled once, evaluated once per event."""

from __future__ import annotations

import hashlib
import re
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cel_expr_python import cel

from eventstreams.errors import FilterError
from eventstreams.filters.limits import EVENT, INDEX, FilterLimits, check
from eventstreams.filters.tree import Node, parse_tree
from eventstreams.filters.view import EventView, environment

COMPILE_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")

WINDOW = 10.0
SHARE = 0.05
"""A filter that takes more than this share of the process over a window goes: it holds up everybody."""


class _Roots:
    """The root fields that all filters in use read; None when one reads the event as a whole."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._whole = 0
        self.wanted: frozenset[str] | None = frozenset()

    def add(self, roots: frozenset[str] | None, sign: int) -> None:
        """Count a filter in (1) or out (-1)."""
        if roots is None:
            self._whole += sign
        else:
            for name in roots:
                self._counts[name] += sign
        self.wanted = None if self._whole else frozenset(name for name, count in self._counts.items() if count > 0)


class Filter:
    """Which events a subscription sees. Made by `compile_filters`."""

    def __init__(self, key: str, program: Any, roots: frozenset[str] | None) -> None:
        self.key = key
        """The same for equal filters."""
        self.roots = roots
        """The root fields of an event that it reads; None is all."""
        self._program = program
        self._view: weakref.ref[EventView] | None = None
        self._verdict = False
        self._window = time.monotonic()
        self._spent = 0.0
        self.over_budget = False
        """Whether it has taken more than its share of the process."""
        _roots.add(roots, 1)
        weakref.finalize(self, _roots.add, roots, -1)

    def matches(self, view: EventView) -> bool:
        """Return whether the event matches: whether CEL evaluates to exactly true. Never raises."""
        began = time.perf_counter()
        try:
            result = self._program.eval(view.activation(self.roots, _roots.wanted)).value()
        except RuntimeError:
            # Undefined too: the library's iteration budget.
            result = None
        self._note(time.perf_counter() - began)
        return result is True

    def _note(self, seconds: float) -> None:
        self._spent += seconds
        if self._spent > WINDOW * SHARE:
            now = time.monotonic()
            if now - self._window <= WINDOW:
                self.over_budget = True
            self._window, self._spent = now, 0.0


_roots = _Roots()
_by_key: weakref.WeakValueDictionary[str, Filter] = weakref.WeakValueDictionary()
_by_text: weakref.WeakValueDictionary[tuple[str, ...], Filter] = weakref.WeakValueDictionary()


def compile_filters(texts: Sequence[str], limits: FilterLimits | None = None) -> Filter:
    """Return the filter that all texts together are: an event must match each.

    Blocks for about a millisecond at most. Raises: FilterError that names limit or mistake, value and place.
    """
    limits = limits or FilterLimits()
    known = _by_text.get(tuple(texts))
    if known is not None:
        return known
    length = sum(map(len, texts))
    if length > limits.characters:
        raise FilterError(f"filter of {length} characters: at most {limits.characters} are taken")
    joined = " && ".join(_part(text, limits) for text in texts)
    expression = _compiled(joined, joined)
    tree = parse_tree(expression.serialize())
    check(tree, joined, limits)
    key = hashlib.sha256(repr(tree.root.shape()).encode()).hexdigest()
    found = _by_key.get(key)
    if found is None:
        if expression.return_type() != cel.Type.BOOL:
            # Deliberate: the library loses a reference to None with each null result, and the process ends in time.
            expression = _compiled(f"({joined}\n) == true", joined)
        found = _by_key[key] = Filter(key, expression, _roots_of(tree.root))
    _by_text[tuple(texts)] = found
    return found


def _part(text: str, limits: FilterLimits) -> str:
    """Check one text alone: a mistake is told with its own place, and no parenthesis reaches another text."""
    _check_text(text)
    expression = _compiled(text, text)
    check(parse_tree(expression.serialize()), text, limits)
    # What is known to be no boolean never matches; the checker would rather not have it in an `&&`.
    known = expression.return_type() in (cel.Type.BOOL, cel.Type.DYN)
    return f"({text}\n)" if known else f"dyn({text}\n)"


def _check_text(text: str) -> None:
    if not text.strip():
        raise FilterError("filter: expected a CEL expression, found nothing")
    if "\0" in text:
        raise FilterError(f"filter {text[:200]!r}: U+0000 is not taken")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise FilterError("filter: a lone surrogate is not taken") from exc


def _compiled(text: str, shown: str) -> Any:
    try:
        return environment().compile(text)
    except RuntimeError as exc:
        raise FilterError(_told(str(exc), shown)) from exc


def _told(message: str, text: str) -> str:
    found = COMPILE_ERROR.search(message)
    shown = text if len(text) <= 200 else text[:200] + "..."
    if found is None or found[1] == "-1":
        words = found[3] if found is not None else message.splitlines()[0]
        return f"filter {shown!r}: {words[:500]}"
    return f"filter {shown!r}: line {found[1]}, column {found[2]}: {found[3][:500]}"


def _roots_of(root: Node) -> frozenset[str] | None:
    """Return the root fields that an expression reads; None when it reads the event in another way."""
    names: set[str] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        name = _field_of_event(node)
        if name is not None:
            names.add(name)
        elif node.kind == "ident" and node.name == EVENT:
            return None
        else:
            waiting += node.children
    return frozenset(names)


def _field_of_event(node: Node) -> str | None:
    if not node.children or node.children[0].kind != "ident" or node.children[0].name != EVENT:
        return None
    if node.kind in ("select", "has"):
        return node.name
    if node.kind == "call" and node.name == INDEX and isinstance(node.children[1].value, str):
        return node.children[1].value
    return None
