"""One reader for the values of settings, wherever they come from.

What a value means depends on the type that its setting is declared with, never on where it stands or on what it was:
a scalar of the file, a variable of the environment and a text of the command line are the same text. docs/settings.md
has the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from eventstreams.errors import ConfigurationError
from eventstreams.setting_types import Properties
from eventstreams.setting_values import Steps, Value, sentence
from eventstreams.setting_words import Wanted, is_secret, names_of, nearest, shown
from eventstreams.settings_given import PREFIX, Given, variable
from eventstreams.yaml_nodes import name

Model = TypeVar("Model", bound=BaseModel)

MAX_TOLD = 10


def read_settings(model: type[Model], given: Iterable[Given]) -> Model:
    """Return settings of a model; what is given later goes over what was given before.

    Raises: ConfigurationError that tells name, value, what was expected and where it stands, of each that is wrong.
    """
    reading = _Reading(model)
    for one in given:
        reading.take(one)
    reading.end()
    try:
        return model.model_validate(reading.values)
    except ValidationError as exc:
        found = {reading.problem(error): None for error in exc.errors(include_url=False)}
        raise ConfigurationError(_joined(list(found))) from exc


def _joined(problems: list[str]) -> str:
    more = f"; and {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
    return "; ".join(problems[:MAX_TOLD]) + more


class _Reading:
    """Values as they are gathered, where each stands, and what is wrong so far."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.values: dict[str, Any] = {}
        self._wanted = Wanted(model)
        self._places: dict[Steps, str] = {}
        self._problems: list[str] = []

    def take(self, given: Given) -> None:
        """Read what is given into the values, or note what is wrong with it."""
        try:
            self._take(self._wanted, (), given.name, given)
        except ConfigurationError as exc:
            self._problems.append(exc.message)

    def end(self) -> None:
        """Raises: ConfigurationError for what was noted."""
        if self._problems:
            raise ConfigurationError(_joined(self._problems))

    def _take(self, section: Wanted, path: Steps, rest: str, given: Given) -> None:
        """Find what `rest` of a dotted name says within a section, and read that."""
        if not rest:
            self._take_names(section, path, given)
            return
        step, _, rest = rest.partition(".")
        assert section.model is not None
        if step not in section.model.model_fields:
            raise self._unknown(given, ".".join(filter(None, map(str, (*path, step, rest)))))
        wanted, path = section.inner(step), (*path, step)
        if wanted.model is not None:
            self._take(wanted, path, rest, given)
        elif wanted.mark(Properties):
            self._take_properties(wanted, path, rest, given)
        elif not rest:
            self._set(path, Value(self._places, path, wanted, given.source, secret=is_secret(wanted)).read(given.node))
        elif wanted.kind is dict:
            path = (*path, rest)
            inner = Value(self._places, path, wanted.inner(rest), given.source, secret=is_secret(wanted))
            self._set(path, inner.read(given.node))
        else:
            raise self._unknown(given, ".".join(map(str, (*path, rest))))

    def _take_names(self, section: Wanted, path: Steps, given: Given) -> None:
        value = Value(self._places, path, section, given.source)
        for key, node in value.named(given.node, null=True):
            self.take_below(section, path, Given(name(key), node, given.source, key))

    def take_below(self, section: Wanted, path: Steps, given: Given) -> None:
        """Read one name of a section; what is wrong with it does not hide what is wrong with others."""
        try:
            if not given.name:
                raise self._unknown(given, ".".join(map(str, (*path, "''"))))
            self._take(section, path, given.name, given)
        except ConfigurationError as exc:
            self._problems.append(exc.message)

    def _take_properties(self, wanted: Wanted, path: Steps, rest: str, given: Given) -> None:
        kind, _, below = rest.partition(".")
        kinds = wanted.mark(Properties).kinds if len(path) == 1 else ()
        if kind in kinds and below:
            self._take_properties(wanted, (*path, kind), below, given)
            return
        if not rest or kind in kinds:
            path = (*path, kind) if rest else path
            value = Value(self._places, path, wanted, given.source, secret=True)
            for key, node in value.named(given.node, null=True):
                self._take_properties(wanted, path, name(key), Given(name(key), node, given.source, key))
            return
        value = Value(self._places, (*path, rest), Wanted(str), given.source, secret=True)
        self._set((*path, rest), value.read_property(given.node))

    def _set(self, path: Steps, value: object) -> None:
        at: Any = self.values
        for step in path[:-1]:
            at = at.setdefault(step, {})
        at[path[-1]] = value

    def _unknown(self, given: Given, dotted: str) -> ConfigurationError:
        assert self._wanted.model is not None
        near = nearest(dotted, names_of(self._wanted.model))
        if near is not None and given.source.words.upper().startswith(PREFIX) and not given.source.is_file:
            near = variable(near)
        hint = f"; the nearest is {near}" if near else ""
        return ConfigurationError(f"setting {dotted}: there is no such setting{hint} ({given.place})")

    def problem(self, error: Any) -> str:
        """Return the sentence for one of pydantic's errors."""
        wanted, secret = self._wanted, False
        value: Any = self.values
        path: Steps = ()
        for step in error["loc"]:
            if step == "[key]" and wanted.kind is dict:
                wanted = Wanted(wanted.arguments[0])
                break
            inside = step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
            if not inside and error["type"] != "missing":
                break
            wanted, path = wanted.inner(step), (*path, step)
            secret = secret or is_secret(wanted)
            value = value[step] if inside else None
        ends = range(len(path), -1, -1)
        place = next((self._places[path[:end]] for end in ends if path[:end] in self._places), "by default")
        return sentence(path, wanted, place, None if secret or error["type"] == "missing" else shown(value))
