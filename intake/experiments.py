"""Experiments: who takes part comes with the request, not with the event (spec eventgate 12)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from eventstreams.errors import EventStreamsError

ENROLLMENTS = "x-experiment-enrollments"
AWAITING = "awaiting"
ENROLLMENT = re.compile(r"([^=/;\s]+)=([^=/;\s]+)/([^=/;\s]+)")


class MalformedHeaderError(EventStreamsError):
    """A header that cannot be read. Its value, which identifies people, is not quoted."""

    code = "malformed_header"


class HoistingError(EventStreamsError):
    """An event that waits for a subject which the request does not name."""

    code = "hoisting"


class DeniedUserAgentError(EventStreamsError):
    """An event from a user agent that experiments do not count."""

    code = "denied_user_agent"


def parse_enrollments(header: str) -> Mapping[tuple[str, str], str]:
    """Return the subject for each experiment and group. Raises: MalformedHeaderError."""
    found: dict[tuple[str, str], str] = {}
    for part in filter(None, (part.strip() for part in header.split(";"))):
        match = ENROLLMENT.fullmatch(part)
        if match is None:
            raise MalformedHeaderError(f"{ENROLLMENTS}: expected name=group/subject, separated by semicolons")
        found[match[1], match[2]] = match[3]
    return found


def hoist_subject(event: dict[str, Any], headers: Mapping[str, str]) -> None:
    """Put the subject where the event says `awaiting`. Raises: MalformedHeaderError, HoistingError."""
    experiment = event.get("experiment")
    if not isinstance(experiment, dict) or experiment.get("subject_id") != AWAITING:
        raise HoistingError("experiment.subject_id is not 'awaiting': its subject cannot be filled in")
    subjects = parse_enrollments(headers.get(ENROLLMENTS, ""))
    enrolled, assigned = experiment.get("enrolled"), experiment.get("assigned")
    subject = subjects.get((enrolled, assigned)) if isinstance(enrolled, str) and isinstance(assigned, str) else None
    if subject is None:
        raise HoistingError(f"{ENROLLMENTS} has no subject for the event's experiment and group")
    experiment["subject_id"] = subject


def refuse_user_agent(headers: Mapping[str, str], denied: Sequence[re.Pattern[str]]) -> None:
    """Check a request's user agent. Raises: DeniedUserAgentError."""
    agent = headers.get("user-agent", "")
    if any(pattern.search(agent) for pattern in denied):
        raise DeniedUserAgentError("events from this user agent are not taken for experiments")
