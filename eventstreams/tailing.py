"""`eventstreams tail`: a stream on the terminal, resumed by itself after a cut."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import quote

import click
import httpx
import httpx_sse
import orjson

from eventstreams import __version__
from eventstreams.addresses import is_http_url, reason
from eventstreams.errors import ConfigurationError, ServiceUnavailable

LONGEST_PAUSE = 30.0
READ_TIMEOUT = 60.0
"""Seconds without a byte, four heartbeats, after which the connection is taken for dead."""

NOT_NOW = frozenset({429, 502, 503, 504})


@click.command()
@click.argument("streams")
@click.option("--url", default="http://127.0.0.1:8092", show_default=True, help="Gateway to read from.")
@click.option("--since", metavar="TIME", help="Start at this time: ISO 8601, or milliseconds since the epoch.")
@click.option("--filter", "filters", metavar="CEL", multiple=True, help="Only events that match; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
def tail(streams: str, url: str, since: str | None, filters: tuple[str, ...], as_json: bool, count: int | None) -> None:
    """Show the events of STREAMS (names joined by commas) as they come.

    \b
    Example: eventstreams tail recentchange --json | jq .title
    Example: eventstreams tail page-create --since 2026-01-05T10:00:00Z --count 10
    """
    if not is_http_url(url):
        raise ConfigurationError(f"--url {url!r}: expected http://HOST:PORT or https://HOST:PORT")
    params = [("since", since)] if since else []
    params += [("filter", text) for text in filters]
    shown = 0
    agent = {"user-agent": f"eventstreams/{__version__}"}  # Not the library's: that gets no blocks with only an id.
    timeout = httpx.Timeout(10.0, read=READ_TIMEOUT)
    with httpx.Client(timeout=timeout, headers=agent, follow_redirects=True, trust_env=False) as http:
        for data in _events(http, f"{url.rstrip('/')}/v2/stream/{quote(streams, safe=',')}", params):
            click.echo(data if as_json else _line(data))
            shown += 1
            if shown == count:
                return


def _events(http: httpx.Client, url: str, params: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the data of each event for ever. Raises: ConfigurationError where it is refused, or by no gateway."""
    last_id, pause = "", 1.0
    while True:
        headers = {"last-event-id": last_id} if last_id else {}
        try:
            with httpx_sse.connect_sse(http, "GET", url, params=params, headers=headers) as source:
                _check(source.response)
                for event in source.iter_sse():
                    last_id, pause = event.id or last_id, 1.0
                    if event.retry is not None:
                        pause = event.retry / 1000
                    if event.event == "message" and event.data:
                        yield event.data
                    elif event.event in ("gap", "error"):
                        click.echo(f"{event.event}: {event.data}", err=True)
            click.echo(f"the stream has ended, again in {pause:.0f} s", err=True)
        except ServiceUnavailable as exc:
            pause = max(pause, exc.retry_after or 0.0)
            click.echo(f"not served now ({exc}), again in {pause:.0f} s", err=True)
        except httpx.RequestError as exc:
            click.echo(f"no connection to {url} ({reason(exc)}), again in {pause:.0f} s", err=True)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _check(response: httpx.Response) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code == 200 and kind == "text/event-stream":
        return
    response.read()
    detail = _detail(response)
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if response.status_code in NOT_NOW:
        told = response.headers.get("retry-after", "")
        wait = min(float(told), LONGEST_PAUSE) if told.isdecimal() else None
        raise ServiceUnavailable(f"{status}: {detail}" if detail else status, retry_after=wait)
    if detail:
        raise ConfigurationError(f"{status}: {detail}")
    raise ConfigurationError(f"{response.url} is no gateway's: it answered {status}, {kind or 'no content type'}")


def _detail(response: httpx.Response) -> str:
    """Return the sentence of an error that a gateway answers; nothing for what is none."""
    try:
        body = orjson.loads(response.content)
        said = body.get("detail") or body.get("message") or ""
    except (orjson.JSONDecodeError, AttributeError):
        return ""
    return " ".join(str(said).split())[:2000]


def _line(data: str) -> str:
    try:
        event = orjson.loads(data)
        meta = event["meta"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return data
    what = event.get("title") or event.get("page_title") or meta.get("id", "")
    return "  ".join(str(part) for part in (meta.get("dt", "-"), meta.get("stream", "-"), event.get("wiki", "-"), what))
