"""From the settings to what intake is given, which knows none of them."""

from __future__ import annotations

from eventstreams.addresses import parse_networks
from eventstreams.settings import IntakeSettings, Settings
from intake.endpoints import EndpointOptions
from intake.options import IntakeOptions
from intake.paths import dotted


def endpoint_options(settings: Settings) -> EndpointOptions:
    """Return how requests are read."""
    given = settings.intake
    return EndpointOptions(
        max_body_bytes=given.max_body_bytes,
        max_batch_events=given.max_batch_events,
        body_timeout=given.body_timeout,
        trusted=parse_networks(settings.trusted_proxies),
        hasty=given.hasty,
        hasty_off=frozenset(given.hasty_off),
        test_events=given.test_events,
    )


def intake_options(given: IntakeSettings) -> IntakeOptions:
    """Return the pipeline's options as the settings have them."""
    return IntakeOptions(
        service=given.service,
        user_agent=given.user_agent,
        topic_prefix=given.topic_prefix,
        schema_uri_fields=[dotted(field) for field in given.schema_uri_fields],
        stream_fields=[dotted(field) for field in given.stream_fields],
        id_field=dotted(given.id_field),
        dt_field=dotted(given.dt_field),
        schema_uri_parameter=given.schema_uri_query_param,
        stream_parameter=given.stream_query_param,
        error_stream=given.error_stream,
        error_reasons=frozenset(given.error_reasons),
        error_schema_uri=given.error_schema_uri,
        transforms=given.transforms,
        denied_user_agents=given.denied_user_agents,
        max_event_bytes=given.max_event_bytes,
        max_in_flight_bytes=given.max_in_flight_bytes,
        deduplication_ids=given.deduplication_ids,
        produce_timeout=given.produce_timeout,
    )
