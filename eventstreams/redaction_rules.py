"""From the settings to what is hidden of events."""

from __future__ import annotations

import re

from eventstreams.errors import ConfigurationError
from eventstreams.settings import GatewaySettings, RedactionRule
from eventstreams.subscribe.redaction import Condition, Redaction, Rule, page_rules


def redaction(given: GatewaySettings) -> Redaction | None:
    """Return the rules of the settings, None where there are none. Raises: ConfigurationError."""
    rules = [*page_rules(given.redacted_pages)] if given.redacted_pages else []
    return Redaction([*rules, *map(_rule, given.redaction)]) if rules or given.redaction else None


def _rule(given: RedactionRule) -> Rule:
    """Return a rule of the settings. Raises: ConfigurationError for a pattern that is none."""
    try:
        return Rule(
            given.streams,
            [
                Condition([c.field] if isinstance(c.field, str) else c.field, c.one_of, by=c.by, compare=c.compare)
                for c in given.when
            ],
            remove=given.remove,
            empty=given.empty,
            require=given.require,
            withhold=given.withhold,
            last=given.last,
        )
    except re.error as exc:
        raise ConfigurationError(f"setting gateway.redaction: streams {given.streams!r}: {exc}") from exc
