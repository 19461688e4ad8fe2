"""Streams by name: what both doors ask, one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple


class TopicSettings(NamedTuple):
    """How a stream's topics are to be made on Kafka; None is the cluster's default."""

    partitions: int | None = None
    replication_factor: int | None = None
    config: Mapping[str, Any] = MappingProxyType({})
    """Topic settings of Kafka by name, `retention.ms` for instance."""


CLUSTER_DEFAULTS = TopicSettings()


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """A stream: its public name, the topics it is read from, and its settings as they were given."""

    name: str
    topics: tuple[str, ...]
    description: str
    schema_title: str | None
    settings: Mapping[str, Any]
    alias_of: str | None = None
    topics_allowed: tuple[str, ...] = ()
    """More topics that a Last-Event-ID may name."""
    message_key_fields: Mapping[str, str] | None = None
    """Names in the record's key, each with the path of the event's field that it is taken from."""
    is_public: bool = True
    """Whether the gateway serves it."""
    topic_settings: TopicSettings = CLUSTER_DEFAULTS

    @property
    def is_pattern(self) -> bool:
        """Whether the name is a regular expression between slashes that stands for many streams."""
        return len(self.name) > 2 and self.name[0] == self.name[-1] == "/"


def topics_to_make(streams: Iterable[StreamConfig], prefix: str) -> Mapping[str, TopicSettings]:
    """Return the topics that streams are read from and that intake appends to; `prefix` is put before its names."""
    return {
        topic: stream.topic_settings
        for stream in streams
        if not stream.is_pattern and stream.alias_of is None
        for topic in (*stream.topics, *((prefix + stream.name,) if prefix else ()))
    }


class StreamCatalog:
    """The configured streams, in the order of the configuration. A refresh swaps all of them at once."""

    def __init__(self, streams: Sequence[StreamConfig]) -> None:
        self.version = 0
        """Rises with each swap."""
        self.watchers: list[Callable[[], None]] = []
        """Called after each swap."""
        self._take(streams)

    def _take(self, streams: Sequence[StreamConfig]) -> None:
        self._all = list(streams)
        self._streams = {stream.name: stream for stream in streams if stream.alias_of is None}
        # Aliases come last: one goes before a stream of its name, at the gateway.
        public = {stream.name: stream for stream in streams if stream.is_public and not stream.is_pattern}
        self._public = dict(sorted(public.items()))
        self._patterns = [(re.compile(s.name[1:-1]), s) for s in streams if s.is_pattern and s.alias_of is None]

    def swap(self, streams: Sequence[StreamConfig]) -> None:
        """Replace all streams."""
        self._take(streams)
        self.version += 1
        for watcher in self.watchers:
            watcher()

    def public(self, name: str) -> StreamConfig | None:
        """Return the stream of this exact name or alias."""
        return self._public.get(name)

    def public_names(self) -> Sequence[str]:
        """Return all names and aliases, sorted."""
        return list(self._public)

    def find(self, name: str) -> StreamConfig | None:
        """Return the stream that an event may name: the exact one, else the first whose pattern matches; no alias."""
        exact = self._streams.get(name)
        if exact is not None and not exact.is_pattern:
            return exact
        return next((stream for pattern, stream in self._patterns if pattern.search(name)), None)

    def all(self) -> Sequence[StreamConfig]:
        """Return all streams, aliases and patterns too."""
        return list(self._all)
