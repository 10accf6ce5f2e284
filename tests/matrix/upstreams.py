"""The five servers: the fixture in each family over each transport, with what reached them."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.upstream import TESTS, FixtureServer

NAMES = ("modern-stdio", "modern-http", "legacy-stdio", "legacy-http", "sse")
_COUNTED = ("methods", "tools", "prompts", "resources", "cancelled")


@dataclass
class Seen:
    """What a server received so far: counters, and the last requests whole."""

    counts: dict[str, Counter[str]]
    last: list[dict[str, Any]]

    @classmethod
    def of(cls, counts_of: list[dict[str, Any]]) -> "Seen":
        """Return the sum over several processes of one server."""
        counts: dict[str, Counter[str]] = {kind: Counter() for kind in _COUNTED}
        for each in counts_of:
            for kind in _COUNTED:
                counts[kind].update(each[kind])
        return cls(counts, [request for each in counts_of for request in each["last"]])

    def more(self, kind: str, name: str, before: "Seen") -> bool:
        """Return whether a counter grew."""
        return self.counts[kind][name] > before.counts[kind][name]

    def mentions(self, word: str, tool: str) -> bool:
        """Return whether a request for a tool or prompt contained a word."""
        return any(
            request["params"].get("name") == tool and word in json.dumps(request["params"])
            for request in self.last
        )


class OverHttp:
    """A fixture server on a port."""

    def __init__(self, directory: Path, *options: str, sse: bool = False) -> None:
        self._server = FixtureServer(directory, *options)
        self._sse = sse

    @property
    def declared(self) -> dict[str, Any]:
        """The entry in toolbus.yaml."""
        url = self._server.url
        return {"sse": url.removesuffix("/mcp") + "/sse"} if self._sse else {"url": url}

    def start(self) -> None:
        """Start the server."""
        self._server.start()

    def stop(self) -> None:
        """Stop the server."""
        self._server.kill()

    def seen(self) -> Seen:
        """Return what reached it."""
        return Seen.of([self._server.seen()])


class OverStdio:
    """A fixture server that the gateway starts; each of its processes writes its own file."""

    def __init__(self, directory: Path, family: str) -> None:
        self._directory = directory
        self._family = family

    @property
    def declared(self) -> dict[str, Any]:
        """The entry in toolbus.yaml."""
        script = 'exec "$0" -m fixture_server --stdio --family "$1" --seen "$2/$$.json"'
        command = ["/bin/sh", "-c", script, sys.executable, self._family, str(self._directory)]
        # The shell is the command, so that it can name the file by its process.
        python = [sys.prefix, sys.base_prefix, str(TESTS)]
        return {
            "command": command,
            "env": {"PYTHONPATH": str(TESTS)},
            "files": {"read": python, "write": [str(self._directory)]},
        }

    def start(self) -> None:
        """Create the directory for the counts."""
        self._directory.mkdir(parents=True)

    def stop(self) -> None:
        """Do nothing: the server ends with the gateway."""

    def seen(self) -> Seen:
        """Return what reached it."""
        items = []
        for file in sorted(self._directory.glob("*.json")):
            try:
                items.append(json.loads(file.read_text()))
            except ValueError:  # the file is being written
                return self.seen()
        return Seen.of(items)


Upstream = OverHttp | OverStdio


@contextmanager
def upstreams(directory: Path) -> Iterator[dict[str, Upstream]]:
    """Return all five by name."""
    made: dict[str, Upstream] = {
        "modern-stdio": OverStdio(directory / "modern-stdio", "modern"),
        "modern-http": OverHttp(directory / "modern-http", "--family", "modern"),
        "legacy-stdio": OverStdio(directory / "legacy-stdio", "legacy"),
        "legacy-http": OverHttp(directory / "legacy-http", "--family", "legacy"),
        "sse": OverHttp(directory / "sse", "--family", "legacy", "--sse", sse=True),
    }
    try:
        for upstream in made.values():
            upstream.start()
        yield made
    finally:
        for upstream in made.values():
            upstream.stop()
