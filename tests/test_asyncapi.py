"""`/?asyncapi`, read by the official parser."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from eventstreams.catalog.load import load_catalog
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.schemas.repository import DirectoryRepository
from eventstreams.subscribe.documents import Documents
from eventstreams.subscribe.openapi import About
from tests.conftest import missing_node
from tests.support import asyncapi_parser
from tests.support.processes import ROOT
from tests.test_pages import SCHEMA, STREAMS, write_schema

ABOUT = About("Test streams", "1.2.3", "Streams of a test", "https://example.org/home", "https://example.org/terms")

Findings = Callable[[bytes], list[str]]


@pytest.fixture(scope="module")
def findings() -> Findings:
    """The parser; where it cannot be had the tests are skipped loudly, in continuous integration they fail."""
    try:
        asyncapi_parser.installed()
    except asyncapi_parser.ParserUnavailable as exc:
        if os.environ.get("CI"):
            pytest.fail(f"no AsyncAPI parser: {exc}")
        missing_node.append(str(exc))
        pytest.skip(str(exc))
    return asyncapi_parser.findings


def documents(catalog: StreamCatalog, schemas: Path) -> Documents:
    return Documents(catalog, DirectoryRepository(schemas), ABOUT)


async def test_document_of_odd_names_and_schemas_is_valid(findings: Findings, tmp_path: Path) -> None:
    (tmp_path / "streams.yaml").write_text(STREAMS)
    write_schema(tmp_path / "schemas", "1.0.0", SCHEMA)
    catalog = load_catalog(str(tmp_path / "streams.yaml"))
    count = len(catalog.public_names())
    made = await documents(catalog, tmp_path / "schemas").asyncapi()
    assert findings(made) == [f"channels {count} operations {count}"]


async def test_document_of_the_demo_s_streams_is_valid(findings: Findings) -> None:
    catalog = load_catalog(str(ROOT / "config" / "streams.yaml"))
    count = len(catalog.public_names())
    made = await documents(catalog, ROOT / "config" / "schemas").asyncapi()
    assert findings(made) == [f"channels {count} operations {count}"]


def test_parser_finds_what_is_wrong(findings: Findings) -> None:
    assert any("info" in finding for finding in findings(b'{"asyncapi": "3.0.0"}'))
