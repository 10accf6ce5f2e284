"""Documents of a registry: files, and requests to an HTTP server that follows the API, or not."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from toolbus_cli.catalogue import registry_source, selection
from toolbus_cli.errors import CommandError

REMOTE = {"type": "streamable-http", "url": "https://mcp.tide.example/mcp"}
PINNED = {"registryType": "npm", "identifier": "tide-mcp"}


def tide(version: str, *, latest: bool = False) -> dict[str, Any]:
    package = PINNED | {"version": version}
    server = {"name": "example.tide/tables", "version": version, "packages": [package]}
    return {"server": server, "_meta": {"official": {"isLatest": latest}}}


class Registry(BaseHTTPRequestHandler):
    """The API's two operations, with a page for each server; `/moved` redirects."""

    def do_GET(self) -> None:
        path, query = unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query)
        servers = [tide("1.0.0"), tide("2.0.0", latest=True), {"server": {"name": "example/sea"}}]
        found: Any = None
        if path == "/v0/servers":
            cursor = int(query.get("cursor", ["0"])[0])
            following = str(cursor + 1) if cursor + 1 < len(servers) else None
            found = {"servers": [servers[cursor]], "metadata": {"nextCursor": following}}
        elif path.startswith("/endless/"):
            found = {"servers": [], "metadata": {"nextCursor": "again"}}
        elif path == "/v0/servers/example.tide/tables/versions/1.0.0":
            found = servers[0]
        if path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "https://elsewhere.example")
        else:
            self.send_response(200 if found is not None else 404)
        body = json.dumps(found or {}).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def serving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with serving() as base:
        yield base


def test_a_registry_is_searched_page_by_page(registry: str) -> None:
    found = selection.found("tables", registry)
    assert [(each.title, each.name) for each in found] == [("example.tide/tables", "tables")]
    assert selection.found("nothing", registry) == []


def test_the_latest_or_a_named_version_is_pinned(registry: str) -> None:
    latest = selection.chosen("example.tide/tables", registry)
    first = selection.chosen("example.tide/tables", registry, "1.0.0")
    assert latest.package is not None
    assert first.package is not None
    assert (latest.package.version, first.package.version) == ("2.0.0", "1.0.0")


@pytest.mark.parametrize(
    ("name", "version"), [("example.tide/tables", "9"), ("example.tide/other", "")]
)
def test_a_server_that_the_registry_does_not_have_is_an_error(
    registry: str, name: str, version: str
) -> None:
    with pytest.raises(CommandError, match="no server"):
        selection.chosen(name, registry, version)


def test_a_redirect_is_not_followed_and_pages_are_bounded(registry: str) -> None:
    with pytest.raises(CommandError, match="HTTP 302"):
        registry_source.documents(f"{registry}/moved")
    with pytest.raises(CommandError, match="more than"):
        registry_source.documents(f"{registry}/endless")
    with pytest.raises(CommandError, match="not an MCP registry"):
        registry_source.documents(f"{registry}/nothing")


def test_a_closed_port_is_one_message() -> None:
    with serving() as base:
        pass
    with pytest.raises(CommandError, match="cannot be read"):
        registry_source.documents(base)


def test_a_file_is_a_registry(tmp_path: Path) -> None:
    path = tmp_path / "mirror.json"
    path.write_text(json.dumps({"servers": [tide("1.0.0"), tide("2.0.0", latest=True)]}))
    found = selection.chosen("example.tide/tables", str(path), "1.0.0")
    assert found.package is not None
    assert found.package.version == "1.0.0"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\ud800"])
def test_a_file_that_is_not_json_is_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mirror.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CommandError, match="not valid JSON"):
        registry_source.documents(str(path))


def test_a_large_or_missing_file_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "mirror.json"
    with path.open("wb") as file:
        file.truncate(registry_source.LARGEST + 1)
    with pytest.raises(CommandError, match="larger than"):
        registry_source.documents(str(path))
    with pytest.raises(CommandError, match="cannot be read"):
        registry_source.documents(str(tmp_path / "missing.json"))


def test_another_version_of_an_entry_is_checked() -> None:
    entry = selection.chosen("time", version="2026.1.1")
    assert entry.package is not None
    assert entry.package.version == "2026.1.1"
    for version in ("latest", "^1", "1.0 --x"):
        with pytest.raises(CommandError, match="not one version"):
            selection.chosen("time", version=version)
    with pytest.raises(CommandError, match="has no version"):
        selection.chosen("linear", version="1.0")
