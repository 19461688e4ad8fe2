"""A member of a group that is a little behind it: along the group's recent chunks, which are ready."""

from __future__ import annotations

from eventstreams.subscribe.event_ids import EventIds
from eventstreams.subscribe.group import Chunk, Group


class Following:
    """The way from the chunk whose rest waits to the group's newest. Ended by `stop`."""

    __slots__ = ("_group", "_last", "_number")

    def __init__(self, group: Group, last: Chunk) -> None:
        group.lagging += 1
        self._group = group
        self._number = group.end_recent
        self._last = last

    @property
    def ids(self) -> EventIds:
        """Return the cursor after the chunk that was taken last."""
        return self._last.ids

    @property
    def overtaken(self) -> bool:
        """Whether the group has forgotten the chunk that comes next."""
        return self._number < self._group.first_recent

    def next(self) -> Chunk | None:
        """Return the next chunk, None when all are taken."""
        group = self._group
        if self._number == group.end_recent:
            return None
        self._last = group.recent[self._number - group.first_recent]
        self._number += 1
        return self._last

    def stop(self) -> None:
        """Be no longer counted by the group. Once."""
        self._group.lagging -= 1
