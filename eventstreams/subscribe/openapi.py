"""The OpenAPI 3.0 description of the streams: a path for each, with its schema and an example."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eventstreams.catalog.streams import StreamConfig

Schema = Mapping[str, Any]

_TEXTS = ("title", "description", "format", "default", "enum", "pattern", "minLength", "maxLength")
_BOUNDS = ("multipleOf", "minimum", "maximum", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties")
COPIED = frozenset((*_TEXTS, *_BOUNDS))
"""Keywords that OpenAPI 3.0 has as JSON Schema does."""

COMBINED = ("allOf", "anyOf", "oneOf")


class Described(NamedTuple):
    """A stream with the schema of its events, where that was found."""

    stream: StreamConfig
    schema: Schema | None


class About(NamedTuple):
    """What the description says of the service."""

    title: str
    version: str
    description: str
    home: str
    terms: str | None = None


def openapi(about: About, streams: Sequence[Described]) -> Mapping[str, Any]:
    """Return the document; `streams` are all names and aliases, sorted."""
    names = [described.stream.name for described in streams]
    paths = {"/v2/stream/{streams}": _base(names)}
    for described in streams:
        paths[f"/v2/stream/{described.stream.name}"] = _path(described)
    info: dict[str, Any] = {"title": about.title, "version": about.version, "description": about.description}
    if about.terms is not None:
        info["termsOfService"] = about.terms
    info["license"] = {"name": "Apache2", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
    return {"openapi": "3.0.0", "info": info, "externalDocs": {"url": about.home}, "paths": paths}


def event_schema(schema: Schema) -> dict[str, Any]:
    """Return a schema without what only repositories need."""
    return {name: value for name, value in schema.items() if name not in ("$schema", "$id", "examples")}


def first_example(schema: Schema) -> object:
    """Return the schema's first example; None where it has none."""
    examples = schema.get("examples")
    return examples[0] if isinstance(examples, list) and examples else None


def described_by(stream: StreamConfig) -> str:
    """Return the stream's description, with the title of its schema."""
    title = f"\n\nSchema title: {stream.schema_title}" if stream.schema_title else ""
    return stream.description + title


def _base(names: Sequence[str]) -> dict[str, Any]:
    parameters = [
        {
            "name": "streams",
            "in": "path",
            "description": "Names of streams, joined by commas.",
            "required": True,
            "style": "simple",
            "schema": {"type": "array", "items": {"type": "string", "enum": list(names)}},
        },
        *copy.deepcopy(_POSITION),
    ]
    # Deliberate: the names stand beside `items` too, where clients of the original look for them.
    parameters[0]["schema"]["enum"] = list(names)
    return {"get": _get("Events of streams", "Events of one stream or several, as they happen.", parameters, {}, {})}


def _path(described: Described) -> dict[str, Any]:
    stream, schema = described
    content_schema: dict[str, Any] = {}
    example: dict[str, Any] = {}
    if schema is not None:
        content_schema = openapi_schema(event_schema(schema))
        found = first_example(schema)
        example = {} if found is None else {"example": found}
    parameters = copy.deepcopy(_POSITION)
    return {"get": _get(f"{stream.name} events", described_by(stream), parameters, content_schema, example)}


def _get(
    summary: str, description: str, parameters: list[dict[str, Any]], schema: dict[str, Any], example: dict[str, Any]
) -> dict[str, Any]:
    return {
        "x-monitor": False,
        "tags": ["streams"],
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The events, until either side ends the connection.",
                "content": {
                    "application/json": {"schema": schema or {"type": "object"}, **example},
                    "text/event-stream": {"schema": schema or {"type": "string"}, **example},
                },
            }
        },
    }


_POSITION: list[dict[str, Any]] = [
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "Go on after this position, as the id of an event tells it. Goes before `since`.",
        "schema": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "topic": {"type": "string"},
                    "partition": {"type": "integer"},
                    "offset": {"type": "integer"},
                    "timestamp": {"type": "integer"},
                },
            },
        },
    },
    {
        "name": "since",
        "in": "query",
        "description": "Begin with the first event at or after this time: ISO 8601, or milliseconds since the epoch.",
        "schema": {"type": "string"},
    },
    {
        "name": "filter",
        "in": "query",
        "description": 'Only events for which this CEL expression is true, `event.wiki == "enwiki"` for instance.',
        "schema": {"type": "array", "items": {"type": "string"}},
        "explode": True,
    },
    {
        "name": "canary",
        "in": "query",
        "description": "`false` leaves artificial events out that watch the pipeline.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    {
        "name": "positions",
        "in": "query",
        "description": "How a quiet stream tells where it stands: blocks with an id only, an event `cursor`, or not.",
        "schema": {"type": "string", "enum": ["true", "false", "event"]},
    },
]


def openapi_schema(schema: object) -> dict[str, Any]:
    """Return a JSON Schema in the dialect of OpenAPI 3.0 (Schema Object); what that cannot say is left out."""
    if not isinstance(schema, Mapping):
        return {"not": {}} if schema is False else {}
    out = {name: value for name, value in schema.items() if name in COPIED}
    _numbers(schema, out)
    if isinstance(required := schema.get("required"), list) and required:
        out["required"] = list(dict.fromkeys(required))
    if isinstance(properties := schema.get("properties"), Mapping):
        out["properties"] = {name: openapi_schema(value) for name, value in properties.items()}
    if "additionalProperties" in schema and "patternProperties" not in schema:
        more = schema["additionalProperties"]
        out["additionalProperties"] = more if isinstance(more, bool) else openapi_schema(more)
    for name in COMBINED:
        if isinstance(parts := schema.get(name), list) and parts:
            out[name] = [openapi_schema(part) for part in parts]
    if "not" in schema:
        out["not"] = openapi_schema(schema["not"])
    if "const" in schema:
        out["enum"] = [schema["const"]]
    _types(schema, out)
    return out


def _numbers(schema: Schema, out: dict[str, Any]) -> None:
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        value = schema.get(exclusive)
        if isinstance(value, bool):
            out[exclusive] = value
        elif isinstance(value, (int, float)):
            out[bound], out[exclusive] = value, True


def _types(schema: Schema, out: dict[str, Any]) -> None:
    given = schema.get("type")
    types = [given] if isinstance(given, str) else list(given or ())
    if "null" in types:
        out["nullable"] = True
        types.remove("null")
    if len(types) == 1:
        out["type"] = types[0]
    elif types:
        out["anyOf"] = [
            *out.get("anyOf", ()),
            *({"type": name, **({"items": {}} if name == "array" else {})} for name in types),
        ]
    if out.get("type") == "array":
        items = schema.get("items")
        out["items"] = openapi_schema(items) if not isinstance(items, list) else {}
