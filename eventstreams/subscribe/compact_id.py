"""Event ids over many partitions, short: what their JSON says, in an eighth of its bytes.

Such an id is `[{"cursor":"..."}]`, with `cluster` and `partial` as the first entry of a longer one has them. The text
is base64url letters: a time (ms) that the others count from, then the topics in order. Of each: six letters of its
name's hash, how many partitions follow (by four, plus 2 where they are not 0, 1, 2 ..., plus 1 where a mark is told),
the mark, and of each partition its number where it is not its place, the offset, and the time: 0 for none, else one
more than its zigzag distance. Numbers are base64 VLQ: five bits a letter, lowest first, 32 more where one follows.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby

from eventstreams.positions import Next, mark
from eventstreams.records import TopicPartition

LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
VALUES = {chr(letter): value for value, letter in enumerate(LETTERS)}
MARK = re.compile(r"[A-Za-z0-9_-]{6}", re.ASCII)
NAME_LETTERS = MARK_LETTERS = 6
NUMBER_LETTERS = 13
"""Of a number of 64 bits."""

UNKNOWN = "#"
"""Before the hash of a topic that has none of the names that are known: no topic is called so (Kafka's Topic.java)."""


def number(value: int) -> bytes:
    """Write a number >= 0."""
    letters = bytearray()
    while value >= 32:
        letters.append(LETTERS[value & 31 | 32])
        value >>= 5
    letters.append(LETTERS[value])
    return bytes(letters)


def time(timestamp: int | None, base: int) -> bytes:
    """Write a time in ms."""
    if timestamp is None:
        return LETTERS[:1]
    distance = timestamp - base
    return number((distance << 1 if distance >= 0 else ~(distance << 1)) + 1)


@lru_cache(maxsize=4096)
def name(topic: str) -> str:
    """Return what stands for a topic."""
    digest = hashlib.sha256(topic.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest).decode()[:NAME_LETTERS]


def can_write(partitions: Iterable[TopicPartition], identities: Mapping[str, str]) -> bool:
    """Whether the topics can be told apart, and what they are marked with be written."""
    topics = {partition.topic for partition in partitions}
    marks = (mark(identities[topic]) for topic in topics if identities.get(topic))
    return len({name(topic) for topic in topics}) == len(topics) and all(map(MARK.fullmatch, marks))


def heads(partitions: Sequence[TopicPartition], identities: Mapping[str, str]) -> list[bytes]:
    """Return what stands before the offset of each partition."""
    found: list[bytes] = []
    for topic, group in groupby(partitions, lambda partition: partition.topic):
        numbers = [partition.partition for partition in group]
        told = mark(identities.get(topic, ""))
        in_order = numbers == list(range(len(numbers)))
        before = name(topic).encode() + number(len(numbers) << 2 | (not in_order) << 1 | bool(told)) + told.encode()
        own = [b"" if in_order else number(each) for each in numbers]
        found += [before + own[0], *own[1:]]
    return found


def read(text: str, topics: Iterable[str]) -> tuple[list[tuple[TopicPartition, Next]], dict[str, str]]:
    """Return the partitions with their places, and the marks by topic; a topic that is none of `topics` is `#` + hash.

    Raises: ValueError.
    """
    names = {name(topic): topic for topic in topics}
    letters = _Letters(text)
    base = letters.number()
    entries: list[tuple[TopicPartition, Next]] = []
    marks: dict[str, str] = {}
    while letters.more:
        hashed = letters.take(NAME_LETTERS)
        topic = names.get(hashed, UNKNOWN + hashed)
        count, flags = divmod(letters.number(), 4)
        if flags & 1:
            marks.setdefault(topic, letters.take(MARK_LETTERS))
        # Each takes two letters at least: the text bounds how many there are.
        for place in range(count):
            partition = letters.number() if flags & 2 else place
            entries.append((TopicPartition(topic, partition), Next(letters.number(), letters.time(base))))
    return entries, marks


class _Letters:
    """A text, read from the left."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._text)

    def take(self, count: int) -> str:
        taken = self._text[self._at : self._at + count]
        if len(taken) < count or not all(letter in VALUES for letter in taken):
            raise ValueError(f"cursor: expected {count} letters of base64url at {self._at}")
        self._at += count
        return taken

    def number(self) -> int:
        value = 0
        for place, letter in enumerate(self._letters()):
            value |= (letter & 31) << 5 * place
            if letter < 32:
                return value
        raise ValueError(f"cursor: expected a number at {self._at}")

    def _letters(self) -> Iterator[int]:
        for letter in self._text[self._at : self._at + NUMBER_LETTERS]:
            if letter not in VALUES:
                return
            self._at += 1
            yield VALUES[letter]

    def time(self, base: int) -> int | None:
        value = self.number() - 1
        if value < 0:
            return None
        return base + (value >> 1 if not value & 1 else ~(value >> 1))
