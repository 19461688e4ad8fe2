"""The AsyncAPI 3.0 description of the streams: a channel and a `send` operation for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from eventstreams.subscribe.openapi import About, Described, described_by, event_schema, first_example


def asyncapi(about: About, streams: Sequence[Described]) -> Mapping[str, Any]:
    """Return the document; payloads are JSON Schemas as their repositories have them."""
    info: dict[str, Any] = {"title": about.title, "version": about.version, "description": about.description}
    if about.terms is not None:
        info["termsOfService"] = about.terms
    info["license"] = {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
    info["externalDocs"] = {"url": about.home}
    return {
        "asyncapi": "3.0.0",
        "info": info,
        "defaultContentType": "application/json",
        "channels": {described.stream.name: _channel(described) for described in streams},
        "operations": {described.stream.name: _operation(described) for described in streams},
    }


def _channel(described: Described) -> dict[str, Any]:
    stream = described.stream
    return {
        "address": f"/v2/stream/{quote(stream.name, safe='')}",
        "title": stream.name,
        "description": described_by(stream),
        "messages": {"event": _message(described)},
    }


def _message(described: Described) -> dict[str, Any]:
    schema = described.schema
    message: dict[str, Any] = {
        "name": described.stream.schema_title or described.stream.name,
        "contentType": "application/json",
    }
    if schema is not None:
        message["payload"] = {
            "schemaFormat": "application/schema+json;version=draft-07",
            "schema": event_schema(schema),
        }
        example = first_example(schema)
        if isinstance(example, Mapping):
            message["examples"] = [{"payload": example}]
    return message


def _operation(described: Described) -> dict[str, Any]:
    pointer = f"#/channels/{quote(described.stream.name.replace('~', '~0').replace('/', '~1'))}"
    return {
        "action": "send",
        "channel": {"$ref": pointer},
        "summary": f"{described.stream.name} events",
        "messages": [{"$ref": f"{pointer}/messages/event"}],
    }
