"""JavaScript's regular expressions on an engine whose time no text can blow up.

Patterns are matched by the engine of the compiled validators: in time linear in the text, or, where a pattern looks
around or back, with a bounded number of steps after which the text does not match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jsonschema_rs

from eventstreams.errors import InvalidSchema

BACKTRACK_LIMIT = 100_000
OPTIONS = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT)
"""Of both the matcher here and the compiled validators."""

MAX_PATTERNS = 4096
SURROGATE = re.compile("[\ud800-\udfff]")
QUANTIFIER = re.compile(r"\{\d+(?:,\d*)?\}", re.ASCII)
SET_SIGNS = "[&~"
"""Signs of set operations in the engine's character classes, plain characters in JavaScript's."""

BLANK = r"\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": BLANK}
LETTERS = "bBtnrfvcxuk"
"""Letters that mean something after a backslash; any other stands for itself."""

ANY = r"[^\n\r\u2028\u2029]"


def portable(pattern: str) -> str:
    """Return a JavaScript pattern as the engine reads it: what it takes otherwise or not at all is spelt out."""
    out: list[str] = []
    i, in_class = 0, False
    while i < len(pattern):
        character = pattern[i]
        if character == "\\":
            text = _escape(pattern[i : i + 2], in_class)
            i += 1
        elif in_class:
            in_class = character != "]"
            text = f"\\{character}" if character in SET_SIGNS else character
        elif pattern.startswith(("[^]", "[]"), i):
            takes_all = pattern[i + 1] == "^"
            text = r"[\s\S]" if takes_all else r"[^\s\S]"
            i += 2 if takes_all else 1
        else:
            in_class = character == "["
            text = _plain(pattern, i)
        out.append(text)
        i += 1
    return "".join(out)


def _escape(pair: str, in_class: bool) -> str:
    letter = pair[1:]
    members = CLASSES.get(letter.lower())
    if members is not None:
        negated = "^" if letter.isupper() else ""
        return members if in_class and not negated else f"[{negated}{members}]"
    if letter == "0":
        return r"\x00"
    if letter == "b" and in_class:
        return r"\x08"
    return letter if letter.isascii() and letter.isalpha() and letter not in LETTERS else pair


def _plain(pattern: str, i: int) -> str:
    character = pattern[i]
    if character == ".":
        return ANY
    if character == "{" and not QUANTIFIER.match(pattern, i):
        return r"\{"
    if character == "}" and not _closes(pattern, i):
        return r"\}"
    return r"\]" if character == "]" else character


def _closes(pattern: str, i: int) -> bool:
    opened = pattern.rfind("{", 0, i)
    match = QUANTIFIER.match(pattern, opened) if opened >= 0 else None
    return match is not None and match.end() == i + 1


@lru_cache(maxsize=MAX_PATTERNS)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Return whether a text has a match of a JavaScript pattern, anywhere. Raises: InvalidSchema."""
    try:
        check: Any = jsonschema_rs.Draft7Validator({"pattern": portable(pattern)}, pattern_options=OPTIONS)
    except (ValueError, jsonschema_rs.ValidationError) as exc:
        raise InvalidSchema(f"schema is invalid: pattern {pattern!r} is no regular expression") from exc

    def matches(text: str) -> bool:
        try:
            return bool(check.is_valid(text))
        except UnicodeEncodeError:
            return bool(check.is_valid(SURROGATE.sub("\ufffd", text)))

    return matches
