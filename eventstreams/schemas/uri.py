"""Schema URIs: `/title/of/schema/1.0.0`, nothing else. What an event says is never used as a path unchecked."""

from __future__ import annotations

import re
from typing import NamedTuple

from eventstreams.errors import SchemaNotFound

PATTERN = re.compile(r"/?((?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)+)(\d+\.\d+\.\d+|latest)#?", re.ASCII)
LATEST = "latest"
MAX_CHARACTERS = 500


class SchemaUri(NamedTuple):
    """A schema's title and version (`X.Y.Z`, or `latest`)."""

    title: str
    version: str

    def __str__(self) -> str:
        return f"/{self.title}/{self.version}"


def parse_schema_uri(text: object) -> SchemaUri:
    """Parse a URI as events give it: relative, without host, query, escapes, or a fragment that is not empty.

    Raises: SchemaNotFound.
    """
    match = PATTERN.fullmatch(text) if isinstance(text, str) and len(text) <= MAX_CHARACTERS else None
    if match is None:
        raise SchemaNotFound(f"schema URI {text!r}: expected /title/X.Y.Z or /title/latest")
    return SchemaUri(match[1][:-1], match[2])
