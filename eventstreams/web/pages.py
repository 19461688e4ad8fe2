"""Pages for people that are made here: the list of streams, and the frame of the API's documentation."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("description", "schema_title", "partitions", "earliest", "latest", "events_per_second")

DOC_CSP = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; connect-src *; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self';"
)


def streams_page(title: str, streams: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the streams; each mapping has `name`, `url` and COLUMNS."""
    heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in ("name", *COLUMNS))
    return _page(title, f"<h1>{_text(title)}</h1>\n<table>\n<tr>{heads}</tr>\n{''.join(map(_row, streams))}</table>")


def _row(stream: Mapping[str, Any]) -> str:
    link = f'<a href="{_text(stream["url"])}">{_text(stream["name"])}</a>'
    cells = "".join(f"<td>{_text(stream[name])}</td>" for name in COLUMNS)
    return f"<tr><td>{link}</td>{cells}</tr>\n"


def doc_page(title: str) -> str:
    """Return the page that shows `/?spec` by Swagger UI, whose files are at `/?doc&path=FILE`.

    All of them by queries alone, which lead to the same path again, whatever a proxy has put before it.
    """
    return _page(
        title,
        '<div id="swagger-ui"></div>\n<script src="?doc&amp;path=/swagger-ui-bundle.js"></script>\n'
        '<script>SwaggerUIBundle({url: "?spec", dom_id: "#swagger-ui"})</script>',
        '<link rel="stylesheet" href="?doc&amp;path=/swagger-ui.css">\n',
    )


def _page(title: str, body: str, head: str = "") -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{_text(title)}</title>\n{head}</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return html.escape("" if value is None else str(value))
