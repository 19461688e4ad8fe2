"""From the originals' setting names, in which a kit describes its fixtures, to ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from eventstreams.settings import Settings as OurSettings

Given = Mapping[str, Any]
Settings = dict[str, Any]

UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}
TRANSFORMS = {
    "eventgateWikimediaDefaults": "defaults",
    "processEdgeUniques": "edge_uniques",
    "testKitchen": "test_kitchen",
}
WITHOUT_EFFECT = frozenset(
    {
        *("port", "interface", "name", "service_name", "num_workers", "worker_heap_limit_mb", "logging", "metrics"),
        *("proxy", "no_proxy_list", "log_header_whitelist", "spec", "compression_level", "eventgate_factory_module"),
        *("user_agent", "max_body_size", "stream_config_uri", "stream_config_retries"),
        *("schema_uri_options", "schema_file_extension", "schema_precache_uris"),
    }
)
"""What tells how the original runs, not what it answers; or what the kit gives in another way."""


class UnknownSetting(Exception):
    """A fixture sets what has no counterpart here; says what."""


def _nullable(value: Any) -> Any:
    return None if value is False else value


def _size(value: Any) -> int:
    match = re.fullmatch(r"([\d.]+)\s*([a-z]*)", str(value).lower())
    if match is None or match[2] not in UNITS:
        raise UnknownSetting(f"size {value!r}")
    return int(float(match[1]) * UNITS[match[2]])


def _limit(value: Any) -> Settings:
    if not value:
        return {}
    return {"gateway.connections_per_client": value, "gateway.client_address": "x-client-ip"}


def _headers(value: Any) -> Settings:
    return {"streams_headers": dict((value or {}).get("headers", {}))}


def _intake_kafka(value: Any) -> Settings:
    properties = dict((value or {}).get("conf", {}))
    limit = properties.pop("message.max.bytes", None)
    properties.pop("metadata.broker.list", None)
    return {"kafka": properties, **({} if limit is None else {"intake.max_event_bytes": limit})}


def _csp(value: Any) -> Settings:
    # "EventGate's default (section 3)": a sentence in place of a value asks for the default.
    return {} if isinstance(value, str) and "-src" not in value else {"csp": _nullable(value)}


def _as(name: str, change: Callable[[Any], Any] = lambda value: value) -> Callable[[Any], Settings]:
    return lambda value: {name: change(value)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


GATEWAY: Mapping[str, Callable[[Any], Settings]] = {
    "cors": _as("gateway.cors", _nullable),
    "csp": lambda value: {f"gateway.{name}": given for name, given in _csp(value).items()},
    "stream_ui_enabled": _as("gateway.ui", bool),
    "client_ip_connection_limit": _limit,
    "stream_config_uri_options": _headers,
    "stream_config_object_path": _as("streams_object_path"),
    "stream_config_ttl": _as("streams_ttl", lambda value: value or 0),
    "stream_config_defaults": _as("stream_defaults", lambda value: value or {}),
    "stream_config_overrides": _as("stream_overrides", lambda value: value or {}),
    "schema_base_uris": _as("schemas", _list),
    "schema_latest_version": _as("gateway.schema_version"),
    "allowed_streams": _as("allowed_streams"),
    "mediawiki_redacted_pages": _as("gateway.redacted_pages", lambda value: value or {}),
    "kafka": _as("kafka", lambda value: {k: v for k, v in (value or {}).items() if k != "metadata.broker.list"}),
}

INTAKE: Mapping[str, Callable[[Any], Settings]] = {
    "cors": _as("intake.cors", _nullable),
    "csp": _csp,
    "user_agent": _as("intake.user_agent"),
    "max_body_size": _as("intake.max_body_bytes", _size),
    "schema_uri_field": _as("intake.schema_uri_fields", _list),
    "stream_field": _as("intake.stream_fields", _list),
    "id_field": _as("intake.id_field"),
    "dt_field": _as("intake.dt_field"),
    "schema_base_uris": _as("schemas", _list),
    "allow_absolute_schema_uris": lambda value: {} if not value else {"intake.absolute_schema_uris": True},
    "topic_prefix": _as("intake.topic_prefix", lambda value: value or ""),
    "stream_config_uri": lambda value: {"intake.check_streams": bool(value), **({"streams": value} if value else {})},
    "stream_config_uri_options": _headers,
    "stream_config_object_path": _as("streams_object_path"),
    "stream_config_ttl": _as("streams_ttl", lambda value: value or 0),
    "schema_uri_query_param": _as("intake.schema_uri_query_param"),
    "stream_query_param": _as("intake.stream_query_param"),
    "error_stream": _as("intake.error_stream"),
    "test_events": _as("intake.test_events", _list),
    "transforms": _as("intake.transforms", lambda value: [TRANSFORMS.get(name, name) for name in _list(value)]),
    "test_kitchen": _as("intake.denied_user_agents", lambda value: (value or {}).get("ua_denylist", [])),
    "kafka": _intake_kafka,
}


def translate(given: Given, table: Mapping[str, Callable[[Any], Settings]]) -> tuple[Settings, list[str]]:
    """Return our settings by dotted name, and the names that have no counterpart here."""
    made: Settings = {}
    unknown = []
    for name, value in given.items():
        if name in table:
            ours = table[name](value)
            made |= {key: item for key, item in ours.items() if _is_ours(key)}
            unknown += [name for key in ours if not _is_ours(key)]
        elif name not in WITHOUT_EFFECT:
            unknown.append(name)
    return made, unknown


def _is_ours(name: str) -> bool:
    model: Any = OurSettings
    for part in name.split("."):
        if part not in model.model_fields:
            return False
        model = model.model_fields[part].annotation
    return True


def nested(settings: Given) -> Settings:
    """Return settings by dotted name as the settings file nests them."""
    document: Settings = {}
    for name, value in settings.items():
        *slices, last = name.split(".")
        at = document
        for part in slices:
            at = at.setdefault(part, {})
        at[last] = value
    return document
