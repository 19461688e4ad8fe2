"""Laying settings over settings, as PHP's array_replace_recursive does for production's stream configuration."""

from __future__ import annotations

from typing import Any


def lay_over(base: Any, over: Any) -> Any:
    """Return `base` with `over` on top: maps by key at any depth, lists by index, anything else replaced whole.

    Deliberate: a list over a longer one leaves its rest, an empty one changes nothing; only null clears.
    """
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: lay_over(base[key], value) if key in base else value for key, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list):
        shared = [lay_over(one, other) for one, other in zip(base, over, strict=False)]
        return [*shared, *base[len(shared) :], *over[len(shared) :]]
    return over
