"""The OpenAPI description of intake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def openapi(info: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the OpenAPI 3 document; `info` has name, version and description."""
    return {
        "openapi": "3.0.3",
        "info": {"title": info["name"], "version": info["version"], "description": info["description"]},
        "paths": {
            "/v1/events": {"post": _POST},
            "/v1/stream-configs": {"get": _get("Settings of all streams")},
            "/v1/stream-configs/{streams}": {
                "get": _get("Settings of some streams", [_parameter("streams", "path", "Names joined by commas")])
            },
            "/_info": {"get": _get("Name and version of the service")},
            "/robots.txt": {
                "get": {"summary": "Asks crawlers to stay away", "responses": {"200": {"description": "Text"}}}
            },
        },
        "components": {"schemas": {"Envelope": _ENVELOPE, "Event": _EVENT}},
    }


def _parameter(name: str, place: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": {"type": "string"},
    }


def _get(summary: str, parameters: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": summary,
        "parameters": parameters or [],
        "responses": {"200": {"description": "JSON", "content": content}},
    }


def _outcomes(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Envelope"}}}
    return {"description": description, "content": content}


_ITEM = {
    "type": "object",
    "required": ["status", "event", "context"],
    "properties": {
        "status": {"type": "string", "enum": ["invalid", "error"]},
        "event": {"description": "The event after defaults were filled in", "nullable": True},
        "context": {"type": "object", "description": "errors and errorsText of an invalid event, else message"},
    },
}
_ENVELOPE = {
    "type": "object",
    "properties": {
        "invalid": {"type": "array", "items": _ITEM},
        "error": {"type": "array", "items": _ITEM},
    },
}
_EVENT = {
    "type": "object",
    "required": ["$schema", "meta"],
    "properties": {
        "$schema": {"type": "string", "example": "/test/event/1.0.0"},
        "meta": {"type": "object", "required": ["stream"], "properties": {"stream": {"type": "string"}}},
    },
}
_EVENTS = {
    "oneOf": [
        {"$ref": "#/components/schemas/Event"},
        {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
    ]
}
_POST = {
    "summary": "Store one event or a list of them",
    "parameters": [
        _parameter("hasty", "query", "Any value: answer before the events are stored"),
        _parameter("validate_only", "query", "true: tell the outcomes and store nothing"),
    ],
    "requestBody": {
        "required": True,
        "content": {
            media: {"schema": _EVENTS} for media in ("application/json", "text/plain", "application/reports+json")
        },
    },
    "responses": {
        "200": _outcomes("validate_only: all events would be stored"),
        "201": {"description": "All events are stored"},
        "202": {"description": "hasty: the events were received; else, with a spool: all are stored or kept on disk"},
        "207": _outcomes("Some events are stored"),
        "400": _outcomes("No event is valid, or the body is empty or no JSON"),
        "408": _outcomes("The body did not come whole in time"),
        "413": _outcomes("The body is too large, or has too many events"),
        "415": _outcomes("A charset or content coding that is not read"),
        "429": _outcomes("This client sends too much; Retry-After tells when to come back"),
        "500": _outcomes("No event is stored, and at least one failed for another reason than its schema"),
        "503": _outcomes("No event is stored and the log is away or full; Retry-After tells when to come back"),
    },
}
