"""The intake half of a kit: intake services over a real Kafka.

Also where a fixture says only what its sink must refuse: a broker without that topic refuses it with its own error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from tests.support.acceptance.servers import KitError, Server, run_python
from tests.support.acceptance.translate import INTAKE, Settings, translate
from tests.support.kafka import Broker

RUNNER, FIXTURE = "run_eventgate_cases.py", "eventgate_fixtures.json"
LOOPBACK = ["127.0.0.0/8", "::1/128"]
"""The originals believe X-Client-IP of everybody: here of the cases, which come from these."""


@contextlib.contextmanager
def environment(kit: Path, folder: Path, say: Any) -> Iterator[tuple[Mapping[str, str], list[Server]]]:
    """Start an intake service for each fixture and variant; yield what the runner reads, and the servers."""
    fixtures = with_variants(json.loads((kit / FIXTURE).read_text(encoding="utf-8")))
    _run(kit, "fixtures", {}, str(folder))
    with contextlib.ExitStack() as stack:
        broker = Broker(folder / "kafka")
        stack.callback(broker.kill)
        broker.start()
        variables = {"KAFKA": broker.servers}
        asyncio.run(_make_topics(broker.servers, fixtures.values()))
        _run(kit, "topics", variables)
        servers = []
        for name, fixture in fixtures.items():
            settings = intake_settings(name, fixture, folder, say)
            base = {"log": f"kafka://{broker.servers}", "log_level": "error", "trusted_proxies": LOOPBACK}
            server = stack.enter_context(Server(name, "intake", {**base, **settings}, folder).running())
            servers.append(server)
            variables[name] = str(server.port)
            if "streams" in fixture:
                variables.setdefault("METRICS", f"http://127.0.0.1:{server.admin_port}/metrics")
        yield variables, servers


def _run(kit: Path, command: str, variables: Mapping[str, str], *arguments: str) -> None:
    status, said = run_python([kit / RUNNER, command, *arguments], variables, kit)
    if status:
        raise KitError(f"{RUNNER} {command} ended with {status}: {said[-2000:]}")


def with_variants(document: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the fixtures by name; a variant (T2 of T) has its own settings over those of what it varies."""
    given = {name: fixture for name, fixture in document.items() if isinstance(fixture, dict)}
    made = {}
    for name, fixture in given.items():
        base = name.rstrip("0123456789")
        under = given.get(base, {}) if base != name and "schemas" not in fixture else {}
        settings = {**under.get("settings", {}), **fixture.get("settings", {})}
        made[name] = {**under, **fixture, "settings": settings, "folder": base if under else name}
    return made


async def _make_topics(servers: str, fixtures: Iterable[Mapping[str, Any]]) -> None:
    admin = TopicsAdmin(servers, {})
    for topic in sorted({topic for fixture in fixtures for topic in fixture.get("topics", [])}):
        await admin.create(WantedTopic(topic, 1))


def intake_settings(name: str, fixture: Mapping[str, Any], folder: Path, say: Any) -> Settings:
    """Return our settings for a fixture whose files stand in `folder`."""
    given = {"stream_config_uri": None, "transforms": [], **fixture["settings"]}
    settings, unknown = translate(given, INTAKE)
    for left_out in dict.fromkeys(unknown):
        say(f"{FIXTURE}: {left_out} of {name} has no counterpart here and is left out")
    own = folder / fixture["folder"]
    for key in ("schemas", "streams"):
        if key in settings:
            value = settings[key]
            places = [_place(place, folder, own) for place in ([value] if isinstance(value, str) else value)]
            settings[key] = places[0] if isinstance(value, str) else places
    return settings


def _place(place: str, folder: Path, own: Path) -> str:
    """Return where a path of the fixture is: below its own folder, or below that of all."""
    if "://" in place:
        return place
    return str(own / place if (own / place).exists() else folder / place)
