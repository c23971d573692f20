"""The viewer's server: pictures rendered from the slides' files, packs of what was found, and the page itself.

No part of an address ever becomes a path: a slide must be one of the folder's, a file one in its pack, and the page's
own files are read when the server starts.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import mimetypes
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import tornado.httpserver
import tornado.netutil
import tornado.web

from gigaseg.errors import ConfigError, FormatError, UserError, one_line
from gigaseg.viewer.cohort import ResultsFolder
from gigaseg.viewer.packs import CHANGED, Packs, Preparing
from gigaseg.viewer.picture import Pictures

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PORT = 8787

_HOSTS = r"(localhost|127\.0\.0\.1|\[::1\])"
"""Names by which a browser on this machine calls the server. Any other is refused while it listens on loopback only:
else a foreign page could have its own name point here, and read what is shown."""

_POLICY = "frame-ancestors 'self'"
"""Beside the one in the page itself, which a folder's page has too."""

_FOREVER = "private, max-age=31536000, immutable"
_THREADS = 8


def static_files() -> dict[str, bytes]:
    """The page's own files by name."""
    folder = resources.files("gigaseg.viewer") / "static"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}


def make_application(results: ResultsFolder, *, any_host: bool = False) -> tornado.web.Application:
    """The web application over a results folder.

    Parameters
    ----------
    any_host : answer under any name, not just those of loopback.
    """
    shared = {"results": results, "pictures": Pictures(), "packs": Packs(results), "pool": ThreadPoolExecutor(_THREADS)}
    handlers = [
        (r"/data/slides\.json", _Slides, shared),
        (r"/data/([^/]+)/about\.json", _About, shared),
        (r"/data/([^/]+)/overview\.png", _Overview, shared),
        (r"/data/([^/]+)/picture/(\d{1,2})/(\d{1,7})_(\d{1,7})\.jpg", _Tile, shared),
        (r"/data/([^/]+)/pack/(.+)", _Packed, shared),
        (r"/([A-Za-z0-9._-]*)", _Page, {"files": static_files()}),
    ]
    application = tornado.web.Application(log_function=lambda handler: None)
    application.add_handlers(".*" if any_host else _HOSTS, handlers)  # type: ignore[arg-type]
    return application


def serve(
    results: ResultsFolder,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    results : what to show.
    host : address to listen at; by default only this machine reaches it.
    port : to listen at; by default `PORT`, or any free one when that is taken.
    started : told the address of the page once it can be opened.

    Raises
    ------
    ConfigError : the address or the port cannot be had.
    """
    asyncio.run(_serve(results, host, port, started))


async def _serve(results: ResultsFolder, host: str, port: int | None, started: Callable[[str], None]) -> None:
    try:
        sockets = tornado.netutil.bind_sockets(PORT if port is None else port, host)
    except OSError as error:
        if port is not None or error.errno != errno.EADDRINUSE:
            raise ConfigError(f"cannot listen at {host}, port {port or PORT}: {error.strerror}") from error
        sockets = tornado.netutil.bind_sockets(0, host)
    on_loopback = host in (LOOPBACK, "localhost", "::1")
    server = tornado.httpserver.HTTPServer(make_application(results, any_host=not on_loopback))
    server.add_sockets(sockets)
    shown = f"[{host}]" if ":" in host else host
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    started(f"http://{shown}:{sockets[0].getsockname()[1]}/")
    await stopped.wait()


class _Handler(tornado.web.RequestHandler):
    def initialize(self, results: ResultsFolder, pictures: Pictures, packs: Packs, pool: ThreadPoolExecutor) -> None:
        self.results, self.pictures, self.packs, self.pool = results, pictures, packs, pool

    def set_default_headers(self) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work` in another thread; what is not there is 404, what a user can mend 409 with a line."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)
        except KeyError as error:
            raise tornado.web.HTTPError(404) from error
        except UserError as error:
            self.set_status(409)
            await self.finish({"reason": one_line(error)})
            raise tornado.web.Finish from error

    def keep(self) -> None:
        """Let the browser keep an answer whose address holds what it was made of."""
        if self.get_query_argument("v", ""):
            self.set_header("Cache-Control", _FOREVER)

    def send(self, data: bytes, kind: str) -> None:
        self.set_header("Content-Type", kind)
        self.write(data)


class _Slides(_Handler):
    async def get(self) -> None:
        slides = await self.run(self.results.list)
        self.send(json.dumps({"results": self.results.root.name, "slides": slides}).encode(), "application/json")


class _About(_Handler):
    async def get(self, slide: str) -> None:
        self.send(json.dumps(await self.run(self.results.about, slide)).encode(), "application/json")


class _Overview(_Handler):
    async def get(self, slide: str) -> None:
        folder = await self.run(self.results.folder, slide)
        path = folder / "overview.png"
        # a link could lead to any file
        if not path.is_file() or path.resolve().parent != folder.resolve():
            raise tornado.web.HTTPError(404)
        self.send(path.read_bytes(), "image/png")


class _Tile(_Handler):
    async def get(self, slide: str, level: str, column: str, row: str) -> None:
        data = await self.run(self._render, slide, int(level), int(column), int(row))
        self.keep()
        self.send(data, "image/jpeg")

    def _render(self, slide: str, level: int, column: int, row: int) -> bytes:
        info, version = self.results.info(slide), self.get_query_argument("v", "")
        if version not in ("", info.fingerprint):
            raise FormatError(CHANGED)
        return self.pictures.tile(info, level, column, row)


class _Packed(_Handler):
    async def get(self, slide: str, name: str) -> None:
        try:
            data = await self.run(self.packs.read, slide, name, self.get_query_argument("v", ""))
        except Preparing as preparing:
            self.set_status(202)
            data = json.dumps({"preparing": preparing.share}).encode()
            name = "meta.json"
        else:
            self.keep()
        self.send(data, "application/json" if name.endswith(".json") else "application/gzip")


class _Page(tornado.web.RequestHandler):
    def initialize(self, files: dict[str, bytes]) -> None:
        self.files = files

    def get(self, name: str) -> None:
        data = self.files.get(name or "index.html")
        if data is None:
            raise tornado.web.HTTPError(404)
        kind, _ = mimetypes.guess_type(name or "index.html")
        self.set_header("Content-Type", kind or "application/octet-stream")
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")
        self.write(data)
