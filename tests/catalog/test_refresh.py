"""A catalogue read again: over HTTP, from a real server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eventstreams.catalog.load import CatalogOptions
from eventstreams.catalog.refresh import open_catalog, refresh
from eventstreams.errors import ConfigurationError
from eventstreams.metrics import Metrics


class Served:
    """What the server answers next, and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.content: object = {"streams": {"x": {"topics": ["t"]}}}
        self.asked = threading.Semaphore(0)
        self.hosts: list[str | None] = []
        self.url = ""


@pytest.fixture
def served() -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.hosts.append(self.headers["host"])
            body = json.dumps(state.content).encode()
            self.send_response(state.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            state.asked.release()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/config"
        yield state
        server.shutdown()
        thread.join()


def refreshed(metrics: Metrics, result: str) -> float:
    return metrics.registry.get_sample_value("eventstreams_catalog_refreshes_total", {"result": result}) or 0.0


async def test_refresh_swaps_streams_and_keeps_the_last_good_set(served: Served) -> None:
    metrics, options = Metrics(), CatalogOptions(headers={"Host": "config.example"})
    async with open_catalog(served.url, options, metrics, ttl=0) as catalog:
        assert catalog.public_names() == ["x"]
        assert served.hosts == ["config.example"]
        served.content = {"streams": {"y": {"topics": ["y"]}}}
        await refresh(catalog, served.url, options, metrics)
        assert (catalog.public_names(), catalog.version) == (["y"], 1)
        for status, content in ((500, {}), (200, {"streams": {"z": 1}}), (200, {"error": "no"}), (200, {})):
            served.status, served.content = status, content
            await refresh(catalog, served.url, options, metrics)
        assert (catalog.public_names(), catalog.version) == (["y"], 1)
        assert (refreshed(metrics, "ok"), refreshed(metrics, "failed")) == (1, 4)


async def test_unchanged_configuration_is_not_swapped(served: Served) -> None:
    metrics, options = Metrics(), CatalogOptions()
    async with open_catalog(served.url, options, metrics, ttl=0) as catalog:
        await refresh(catalog, served.url, options, metrics)
        assert catalog.version == 0


async def test_configuration_is_read_again_after_the_time_to_live(served: Served) -> None:
    async with open_catalog(served.url, CatalogOptions(), Metrics(), ttl=0.01):
        assert await asyncio.to_thread(served.asked.acquire, True, 20)
        assert await asyncio.to_thread(served.asked.acquire, True, 20)


async def test_first_reading_that_fails_is_an_error(served: Served) -> None:
    served.status = 503
    with pytest.raises(ConfigurationError, match="status 503"):
        async with open_catalog(served.url, CatalogOptions(), Metrics(), ttl=0):
            pass
