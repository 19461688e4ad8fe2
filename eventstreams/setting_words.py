"""What messages about settings say: what a type expects, a value as it was given, and the name that was meant."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from eventstreams.setting_types import Expected, Properties, Secret

PLAIN = re.compile(r"[\w./:@%+*-]+", re.ASCII)
USER = re.compile(r"//[^/@\s]*@")
MAX_SHOWN = 120
NEAR = 0.7


class Wanted:
    """A declared type without its wrapping: what it is, whether it may be null, and its marks."""

    def __init__(self, declared: Any, marks: Sequence[Any] = ()) -> None:
        self.marks = list(marks)
        self.nullable = False
        while True:
            if get_origin(declared) is Annotated:
                declared, *more = get_args(declared)
                self.marks += more
            elif get_origin(declared) in (Union, UnionType) and NoneType in get_args(declared):
                self.nullable = True
                declared = Union[tuple(one for one in get_args(declared) if one is not NoneType)]  # noqa: UP007
            else:
                break
        self.type = declared
        self.arguments = get_args(declared)
        self.kind = get_origin(declared) or declared

    @classmethod
    def of(cls, field: FieldInfo) -> Wanted:
        """Return what a field of a model is declared as."""
        return cls(field.annotation, field.metadata)

    @property
    def model(self) -> type[BaseModel] | None:
        """The model, where it is one: settings by name."""
        return self.kind if isinstance(self.kind, type) and issubclass(self.kind, BaseModel) else None

    def mark(self, kind: type) -> Any:
        """Return the first mark of a kind, or None."""
        return next((mark for mark in self.marks if isinstance(mark, kind)), None)

    def inner(self, step: object) -> Wanted:
        """Return what is declared for an item of a list, a name in a map or a model; all else for what has none."""
        if self.model is not None and step in self.model.model_fields:
            return Wanted.of(self.model.model_fields[str(step)])
        if self.kind is list or self.kind is dict:
            return Wanted(self.arguments[-1])
        return Wanted(Any)

    def __str__(self) -> str:
        expected = self.mark(Expected)
        words = expected.words if expected else self._plain()
        if self.kind in (int, float):
            words += self._range()
        return words.rstrip(",") + (" or null" if self.nullable else "")

    def _plain(self) -> str:
        if self.kind is Literal:
            return f"one of {', '.join(map(str, self.arguments))}"
        if self.mark(Properties):
            return "properties by name"
        if self.kind is list:
            return f"a list: each item {Wanted(self.arguments[0])}"
        if self.model is not None:
            return "settings by name"
        return {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: "a text in one line, or {file: PATH}",
            dict: "a map, as in {name: value}",
        }.get(self.kind, "a value")

    def _range(self) -> str:
        bounds = {type(mark): mark for mark in self.marks if isinstance(mark, (Ge, Gt, Le, Lt))}
        low: Any = bounds.get(Ge) or bounds.get(Gt)
        high: Any = bounds.get(Le) or bounds.get(Lt)
        below = "" if low is None else f" above {low.gt}" if isinstance(low, Gt) else f" from {low.ge}"
        above = "" if high is None else f" below {high.lt}" if isinstance(high, Lt) else f" to {high.le:.15g}"
        return below + above


def is_secret(declared: Wanted) -> bool:
    """Whether values of this type are never shown."""
    return declared.mark(Secret) is not None


def shown(value: object) -> str:
    """Return a value for a message: short, in one line, without the user of a URL."""
    if isinstance(value, str):
        text = value if PLAIN.fullmatch(value) else repr(value)
    else:
        text = json.dumps(value, default=repr)
    text = without_user(text)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def without_user(url: str) -> str:
    """Return a URL, or a text that holds some, without the names and passwords of users."""
    return USER.sub("//...@", url)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of these names that may have been meant: spelt much alike, or the only one that ends so."""
    known = list(names)
    section, _, last = name.rpartition(".")
    beside = {_bare(one.rpartition(".")[2]): one for one in known if section and one.rpartition(".")[0] == section}
    spelt = beside or {_bare(one): one for one in known}
    found = difflib.get_close_matches(_bare(last if beside else name), spelt, 1, NEAR)
    if found:
        return spelt[found[0]]
    ends = [one for one in known if _bare(one.rpartition(".")[2]) == _bare(last)]
    return ends[0] if len(ends) == 1 else None


def similar(name: str, names: Iterable[str]) -> str | None:
    """Return the one of these names that this may be a misspelling of: much alike, or a whole part of it."""
    known = {_bare(one): one for one in names}
    found = difflib.get_close_matches(_bare(name), known, 1, 0.8)
    if found:
        return known[found[0]]
    parts = [one for one in known.values() if name.lower() in one.split("_")]
    return parts[0] if len(parts) == 1 else None


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def names_of(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Yield the dotted names of a model's settings, sections too."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = Wanted.of(field).model
        if section is not None:
            yield from names_of(section, f"{prefix}{name}.")
