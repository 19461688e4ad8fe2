"""What the configuration hides of events: rules by stream and field, applied once to each record.

A rule looks at an event of its streams; where all its conditions hold, fields are removed or emptied, or the event is
withheld. Rules are tried in order, each on what the ones before it left; `last` ends the list where a rule applied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Event = dict[str, Any]
Path = tuple[str, ...]
Outcome = Literal["unchanged", "redacted", "withheld"]

_BLANKS = (*range(9, 14), 0x20, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF)
BLANKS = "".join(map(chr, _BLANKS))
"""White space and line terminators of ECMAScript, which `trim` removes."""

EMPTY: Mapping[type, Callable[[], Any]] = {dict: dict, list: list, str: str}


def path(text: str) -> Path:
    """Return the names of a dotted path."""
    return tuple(text.split("."))


def exactly(value: object) -> Hashable | None:
    """Return what compares equal where two JSON values are the same scalar; None never matches."""
    return (type(value) is bool, value) if isinstance(value, (str, int, float)) else None


def as_title(value: object) -> Hashable | None:
    """Return a page title as MediaWiki's databases write it, in lower case: `" Secret  page"` is `secret_page`."""
    if isinstance(value, (str, int, float)):
        text = value if isinstance(value, str) else _number(value)
        return re.sub(" +", "_", text.strip(BLANKS)).lower()
    return None


def _number(value: float) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return json.dumps(int(value) if whole else value)


COMPARISONS: Mapping[str, Callable[[object], Hashable | None]] = {"exact": exactly, "title": as_title}


class Condition:
    """A field that holds one of some values; the values may depend on another field.

    `fields` are dotted paths, the first that is there (and not null) counts. `values` is a list, or lists by the exact
    value of the field `by`.
    """

    def __init__(
        self,
        fields: Sequence[str],
        values: Sequence[object] | Mapping[str, Sequence[object]],
        *,
        by: str | None = None,
        compare: str = "exact",
    ) -> None:
        self._fields = [path(text) for text in fields]
        self._normal = COMPARISONS[compare]
        self._by = path(by) if by else None
        lists = values if isinstance(values, Mapping) else {"": values}
        self._values = {key: {self._normal(v) for v in listed} - {None} for key, listed in lists.items()}

    def holds(self, event: Event) -> bool:
        """Whether the event meets it; a field that is not there never does."""
        key = "" if self._by is None else get(event, self._by)
        wanted = self._values.get(key) if isinstance(key, str) else None
        if not wanted:
            return False
        found = next((value for p in self._fields if (value := get(event, p)) is not None), None)
        return self._normal(found) in wanted


@dataclass(frozen=True, slots=True)
class Rule:
    """What to hide of which events. `streams`: a name, or a pattern between slashes; None is every stream."""

    streams: str | None = None
    conditions: Sequence[Condition] = ()
    remove: Sequence[str] = ()
    """Fields that go."""
    empty: Sequence[str] = ()
    """Fields that stay, as an empty object, list or text by what they held; null else."""
    require: Sequence[str] = ()
    """Fields without which the event is withheld: what is to be hidden may stand elsewhere."""
    withhold: bool = False
    """Whether the event is not sent at all."""
    last: bool = False
    """Whether no later rule is tried where this one applied."""
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, default=None)
    _steps: tuple[Sequence[Path], Sequence[Path], Sequence[Path]] = field(init=False, repr=False, default=((), (), ()))

    def __post_init__(self) -> None:
        name = self.streams
        if name is not None and len(name) > 2 and name[0] == name[-1] == "/":
            object.__setattr__(self, "_pattern", re.compile(name[1:-1]))
        steps = tuple([path(text) for text in texts] for texts in (self.require, self.empty, self.remove))
        object.__setattr__(self, "_steps", steps)

    def applies(self, stream: object, event: Event) -> bool:
        """Whether the event is of these streams and meets every condition."""
        if self._pattern is not None:
            if not isinstance(stream, str) or self._pattern.search(stream) is None:
                return False
        elif self.streams is not None and stream != self.streams:
            return False
        return all(condition.holds(event) for condition in self.conditions)

    def apply(self, event: Event) -> Outcome:
        """Hide what is to be hidden; mutates the event."""
        required, emptied, removed = self._steps
        if self.withhold or any(get(event, p) is None for p in required):
            return "withheld"
        changes = [_empty(event, p) for p in emptied] + [_remove(event, p) for p in removed]
        return "redacted" if any(changes) else "unchanged"


class Redaction:
    """The rules of a gateway."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def redact(self, event: Event) -> Outcome:
        """Apply the rules to an event, which is mutated; it has an object as `meta`."""
        stream = event["meta"].get("stream")
        outcome: Outcome = "unchanged"
        for rule in self._rules:
            if rule.applies(stream, event):
                done = rule.apply(event)
                if done == "withheld":
                    return done
                outcome = "redacted" if done == "redacted" else outcome
                if rule.last:
                    break
        return outcome


def get(event: object, at: Path) -> object:
    """Return the value at a path; None where there is none."""
    for name in at:
        event = event.get(name) if isinstance(event, dict) else None
    return event


def _holder(event: Event, at: Path) -> dict[str, Any] | None:
    holder = get(event, at[:-1])
    return holder if isinstance(holder, dict) and at[-1] in holder else None


def _remove(event: Event, at: Path) -> bool:
    holder = _holder(event, at)
    if holder is None:
        return False
    del holder[at[-1]]
    return True


def _empty(event: Event, at: Path) -> bool:
    holder = _holder(event, at)
    if holder is None:
        return False
    held = holder[at[-1]]
    make = EMPTY.get(type(held))
    holder[at[-1]] = make() if make else None
    return bool(held)


def page_rules(pages: Mapping[str, Sequence[object]]) -> Sequence[Rule]:
    """Return the original's rules for titles by domain: who did what to these pages is hidden, the pages are not."""

    def titled(*fields: str) -> Sequence[Condition]:
        return [Condition(fields, pages, by="meta.domain", compare="title")]

    return [
        Rule(
            "mediawiki.page_change.v1",
            titled("page.page_title"),
            empty=["performer"],
            remove=["revision.editor", "prior_state.revision.editor"],
            require=["revision"],
            last=True,
        ),
        Rule("mediawiki.recentchange", titled("title"), remove=["user"], last=True),
        Rule(None, titled("page_title", "page.page_title"), remove=["performer"]),
    ]
