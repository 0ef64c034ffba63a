"""Templates to responses, the few static files, and the headers that every answer carries."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.web.console import shown

_HERE = Path(__file__).parent
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with `no-referrer` a form's Origin would be `null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Pages:
    """Rendering. Everything that goes into a page is escaped; nothing undefined is let through.

    `elsewhere`: what people call the identity provider, where there is one."""

    def __init__(self, elsewhere: str | None = None) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= shown.FILTERS
        self._static = {
            path.name: (path.read_bytes(), _KINDS[path.suffix])
            for path in (_HERE / "static").iterdir()
            if path.suffix in _KINDS
        }
        whole = b"".join(content for content, _ in sorted(self._static.values()))
        self._templates.globals["elsewhere"] = elsewhere
        self._templates.globals["version"] = hashlib.sha256(whole).hexdigest()[:12]

    def text(self, template: str, **facts: object) -> str:
        """A template filled in."""
        return self._templates.get_template(template).render(facts)

    def page(self, template: str, status: int = 200, /, **facts: object) -> Response:
        """A template as an answer."""
        return Response(self.text(template, **facts), status, media_type="text/html")

    def routes(self) -> list[Route]:
        """The static files."""
        return [Route("/console/static/{name}", self.static, methods=["GET"])]

    async def static(self, request: Request) -> Response:
        """One of our own files; its address carries a version, so that it may be kept."""
        found = self._static.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
        return Response(found[0], headers=headers, media_type=found[1])
