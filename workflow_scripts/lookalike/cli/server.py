"""The pages of `lookalike serve`: drop an image in, see the nearest images of a run; and the run's report.

What it guards against, since any page in the same browser can send requests to this machine:

- reading: no CORS headers, and requests that the browser calls cross-site are refused;
- asking: a search needs a token that only the page has;
- DNS rebinding: the request must be for an IP address, localhost or the host that was given;
- scripts in what is shown: a content security policy, types that are not guessed, text that is never markup;
- other files: images are named by their place in the run's list, are read only if they are the bytes that the run
  sampled, and are sent as thumbnails; nothing in a request is a path but the name of a file beside the report.
"""

import hmac
import io
import ipaddress
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lookalike.cli.indexed import Loaded
from lookalike.io import images
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

MOST_BYTES = 64 << 20  # of an upload
MOST_PIXELS = 100_000_000
SIDE = 320  # of a thumbnail
TOKEN = "x-lookalike-token"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = f"{NOTHING}; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'"
# the report has its scripts, styles and images inside, and those of a large one beside it
REPORT = f"{NOTHING}; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:"
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


@dataclass(frozen=True)
class Served:
    """What is served: a loaded index, the words above it, and the run's report."""

    loaded: Loaded
    title: str
    report: Path
    host: str
    k: int


def application(served: Served) -> Starlette:
    """The web application."""
    token = secrets.token_urlsafe(32)
    one_at_a_time = CapacityLimiter(1)  # models use all threads, and not all can be used by two at once

    async def page(request: Request) -> Response:
        name = {"/": "index.html"}.get(request.url.path, request.url.path.removeprefix("/"))
        text = (files("lookalike.cli") / "page" / name).read_text("utf-8")
        return Response(text, media_type=TYPES[name.rpartition(".")[2]], headers={"content-security-policy": PAGE})

    async def facts(request: Request) -> Response:
        return JSONResponse({"title": served.title, "images": len(served.loaded.ids), "token": token})

    async def report(request: Request) -> Response:
        return _file(served.report)

    async def case(request: Request) -> Response:
        folder = served.report.parent / "cases"
        name = request.path_params["name"]
        if name not in {path.name for path in folder.glob("*") if path.is_file() and not path.is_symlink()}:
            raise HTTPException(404)
        return _file(folder / name)

    async def image(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(served.loaded.ids):
            raise HTTPException(404)
        data = await to_thread.run_sync(_thumbnail, served.loaded, number)
        return Response(data, media_type="image/jpeg", headers={"content-security-policy": NOTHING})

    async def search(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get(TOKEN, "").encode(), token.encode()):
            raise HTTPException(403, "This page is out of date. Load it again.")
        data = await _body(request)
        found = await to_thread.run_sync(_search, served, data, limiter=one_at_a_time)
        return JSONResponse(found)

    routes = [
        *(Route(path, page) for path in ("/", "/serve.js", "/serve.css")),
        Route("/facts", facts),
        Route("/report/", report),
        Route("/report/cases/{name:str}", case),
        Route("/image/{number:int}", image),
        Route("/search", search, methods=["POST"]),
    ]
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {HTTPException: _refused}
    return Starlette(routes=routes, middleware=[Middleware(Guard, host=served.host)], exception_handlers=handlers)


class Guard:
    """Refuses requests for another host and those of other pages, and adds headers to every answer."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        why = self.why_refused(Request(scope))
        answer: ASGIApp = PlainTextResponse(why, 403) if why else self.app
        await answer(scope, receive, with_headers)

    def why_refused(self, request: Request) -> str:
        """Why a request is not answered; empty if it is."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not _is_own(_hostname(hosts[0]), self.host):
            return "Unknown host. Use the address that `lookalike serve` printed."
        origin = request.headers.get("origin")
        if origin not in (None, f"{request.url.scheme}://{hosts[0]}"):
            return "This request comes from another page."
        site, mode = (request.headers.get(f"sec-fetch-{name}") for name in ("site", "mode"))
        opened = request.method == "GET" and mode == "navigate" and request.url.path in ("/", "/report/")
        if site in (None, "same-origin", "none") or opened:
            return ""
        return "This request comes from another page."


def _hostname(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_own(name: str, given: str) -> bool:
    """Whether no other page can have made the browser take this name for us: an address has no DNS entry."""
    if name in ("localhost", given.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _body(request: Request) -> bytes:
    """The uploaded file, as far as it may go."""
    declared = request.headers.get("content-length", "0")
    parts, size = [], int(declared) if declared.isdigit() else 0
    if size <= MOST_BYTES:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > MOST_BYTES:
                break
            parts.append(part)
    if size > MOST_BYTES:
        raise HTTPException(413, f"The file is larger than {MOST_BYTES >> 20} MB.")
    return b"".join(parts)


def _search(served: Served, data: bytes) -> dict[str, Any]:
    try:
        pixels = images.count_pixels(data)
    except Exception:  # a broken file may make Pillow raise anything; decoding it gives the reason
        pixels = 0
    if pixels > MOST_PIXELS:
        raise HTTPException(413, f"The image has more than {MOST_PIXELS // 10**6} megapixels.")
    try:
        images.decode(data)
        found = served.loaded.find(data, "the image", served.k)
    except (images.BadImage, LookalikeError) as error:
        raise HTTPException(422, f"The image cannot be used: {error}") from None
    number = served.loaded.number
    return {
        "neighbors": [
            {"rank": hit.rank, "id": hit.image_id, "score": hit.score, "image": f"image/{number(hit.image_id)}"}
            for hit in found
        ]
    }


def _thumbnail(loaded: Loaded, number: int) -> bytes:
    """A small JPEG of a reference, if it still is the file that the run sampled."""
    row = loaded.row(str(loaded.ids[number]))
    try:
        image = images.decode(images.read_row({**row, "root": str(loaded.folder / row["root"])}))
    except (images.BadImage, LookalikeError) as error:
        log.warning("%s is not shown: %s", row["path"], error)
        raise HTTPException(404, "The file was changed or removed after the run.") from None
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _file(path: Path) -> Response:
    if not path.is_file():
        raise HTTPException(404, "The run has no report.")
    return FileResponse(path, headers={"content-security-policy": REPORT})


async def _refused(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code)
