"""The clients that are tried, and what each does: the table of docs/clients.md, which the tests hold to."""

from __future__ import annotations

from typing import NamedTuple

ITSELF = "goes on by itself, nothing lost"
ITS_USER = "its user connects again with the last id: nothing lost"
SKIPS = "goes on by itself; an event that it is cut in is lost, since it takes an id before its event is whole"
TEARS = "goes on by itself; an event that it is cut in is handed out incomplete, and not again"

SILENT = "silent"
EMPTY = "an empty message for a block without data"

SHOWN = "handed out"
IGNORED = "ignored"
WARNED = "a warning in its log"


class Client(NamedTuple):
    """A client, its driver (`toolchain`, `driver`, `arguments`), and what its users see."""

    name: str
    version: str
    toolchain: str
    driver: str
    arguments: tuple[str, ...] = ()
    after_cut: str = ITSELF
    quiet: str = SILENT
    gap: str = SHOWN
    error: str = SHOWN

    @property
    def row(self) -> str:
        """Return its line of the table."""
        return f"| {self.name} | {self.version} | {self.quiet} | {self.after_cut} | {self.gap} | {self.error} |"


CLIENTS = (
    Client("curl", "Debian's", "python", "curl", after_cut=ITS_USER),
    Client("pywikibot `EventStreams`", "11.9.0", "python", "pywikibot", gap=WARNED, error=WARNED),
    Client("requests-sse", "0.5.3", "python", "requests_sse"),
    Client("httpx-sse", "0.4.3", "python", "httpx_sse", after_cut=ITS_USER),
    Client("aiohttp-sse-client2", "0.3.0", "python", "aiohttp_sse_client2", after_cut=ITS_USER),
    Client("sseclient-py", "1.9.0", "python", "sseclient_py", after_cut=ITS_USER),
    Client("launchdarkly-eventsource", "1.7.4", "python", "launchdarkly"),
    Client("eventsource 2 (npm)", "2.0.2", "node", "eventsource_2", after_cut=SKIPS),
    Client("eventsource 4 (npm)", "4.1.1", "node", "eventsource_4"),
    Client("eventsource-client (npm)", "1.2.0", "node", "eventsource_client"),
    Client("@microsoft/fetch-event-source (npm)", "2.0.1", "node", "fetch_event_source", after_cut=SKIPS, quiet=EMPTY),
    Client("wikimedia-streams (npm)", "3.0.0", "node", "wikimedia_streams", gap=IGNORED, error=IGNORED),
    Client("Node's fetch", "18 or newer", "node", "node_fetch", after_cut=ITS_USER),
    Client("Chromium's EventSource, same origin", "Debian's", "chromium", "browser", ("same",)),
    Client("Chromium's EventSource, another origin", "Debian's", "chromium", "browser", ("cross",)),
    Client("Firefox's EventSource, same origin", "Debian's", "firefox", "browser", ("same",)),
    Client("Firefox's EventSource, another origin", "Debian's", "firefox", "browser", ("cross",)),
    Client("okhttp-eventsource (Maven)", "4.1.1", "java", "OkhttpEventsource"),
    Client("r3labs/sse (Go)", "2.10.0", "go", "r3labs", after_cut=TEARS, quiet=EMPTY),
)


class Producer(NamedTuple):
    """A library that posts events, its driver, and what is particular about its requests."""

    name: str
    toolchain: str
    driver: str
    arguments: tuple[str, ...]
    sends: str

    @property
    def row(self) -> str:
        """Return its line of the table."""
        return f"| {self.name} | {self.sends} |"


PRODUCERS = (
    Producer("curl", "python", "curl_producer", (), "a length, or chunks"),
    Producer("curl `--http2`", "python", "curl_producer", ("--http2",), "an offer of HTTP/2 (`Upgrade: h2c`)"),
    Producer("curl, waiting", "python", "curl_producer", ("-H", "Expect: 100-continue"), "`Expect: 100-continue`"),
    Producer("Java's `HttpClient`", "java", "HttpClientProducer", (), "an offer of HTTP/2, unless told not to"),
    Producer("OkHttp", "java", "OkHttpProducer", (), "a length, or chunks"),
    Producer("Go's `net/http`", "go", "producer", (), "a length, or chunks"),
    Producer("Go's `net/http`, waiting", "go", "producer", ("expect",), "`Expect: 100-continue`"),
    Producer("Node's `fetch`", "node", "fetch_producer", (), "a length, or chunks"),
    Producer(
        "requests as .NET's `HttpClient` sends",
        "python",
        "dotnet_like_producer",
        (),
        "the whole URL in the first line, an offer of HTTP/2, `Expect: 100-continue`, chunks",
    ),
)
