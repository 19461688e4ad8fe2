"""Files for browsers: the page for people, and Swagger UI's own."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope
from swagger_ui_bundle import swagger_ui_path

from eventstreams.errors import NotFound
from eventstreams.public_address import root_from
from eventstreams.web.pages import DOC_CSP, doc_page

UI = Path(__file__).parent / "static" / "ui"
CACHED = "public, max-age=0"

BASE = '<base href="/">'
"""What the page for people says of its links, to be replaced."""


class Files:
    """The files of one folder. Nothing outside of it is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._files = StaticFiles(directory=self._folder)

    def holds(self, name: str) -> bool:
        """Whether the name stays within the folder."""
        try:
            return (self._folder / name).resolve().is_relative_to(self._folder)
        except ValueError:
            # A null byte.
            return False

    async def get(self, name: str, scope: Scope) -> Response | None:
        """Return the file with its type and validators (304 where the client has it), None where there is none."""
        if not self.holds(name):
            return None
        try:
            response = await self._files.get_response(name, scope)
        except HTTPException:
            return None
        response.headers["cache-control"] = CACHED
        return response


class FrontPage:
    """The page for people, whose links lead to the root of the service from wherever it is shown."""

    NAME = "index.html"

    def __init__(self) -> None:
        self._files = StaticFiles(directory=UI)

    @cached_property
    def _text(self) -> str:
        return (UI / self.NAME).read_text(encoding="utf-8")

    def get(self, scope: Scope) -> Response:
        """Return the page, with its validator (304 where the client has it)."""
        body = self._text.replace(BASE, f'<base href="{root_from(scope)}">').encode()
        response = Response(body, headers={"cache-control": CACHED}, media_type="text/html; charset=utf-8")
        response.headers["etag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if self._files.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response


class SwaggerUi:
    """The OpenAPI document for people."""

    def __init__(self, title: str) -> None:
        self._page = doc_page(title)
        self._files = Files(Path(str(swagger_ui_path)))

    async def get(self, path: str | None, scope: Scope) -> Response:
        """Return the page, or one of its files. Raises: NotFound for a path out of the folder."""
        headers = {"content-security-policy": DOC_CSP, "x-content-security-policy": DOC_CSP, "x-webkit-csp": DOC_CSP}
        if not path:
            return Response(self._page, headers=headers, media_type="text/html; charset=utf-8")
        name = path.removeprefix("/")
        if not self._files.holds(name):
            raise NotFound(f"{path} could not be found.")
        found = await self._files.get(name, scope)
        return found or Response("not found", 404, media_type="text/plain; charset=utf-8")
