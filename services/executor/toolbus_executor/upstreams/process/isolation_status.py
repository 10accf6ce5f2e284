"""Isolation status of a server's process, for the log and for `toolbus status`."""

import logging
from collections.abc import Mapping
from typing import Any

from toolbus_executor.upstreams.base import Upstream

log = logging.getLogger(__name__)


class IsolationStatus:
    """The latest isolation of one server, and the files hidden from its processes."""

    def __init__(self, server: str) -> None:
        self.now: dict[str, bool] = {}
        self._server = server
        self._upstream: Upstream | None = None
        self._unseen: dict[str, str] = {}
        self._logged: frozenset[str] = frozenset()  # files that were already logged

    def status(self) -> dict[str, Any]:
        """Return the isolation in force, the rejected hosts and the hidden files."""
        self._log_files()
        refused = getattr(self._upstream, "denied_hosts", {})
        return {
            "isolation": self.now,
            "denied_hosts": dict(refused),
            "denied_files": dict(self._unseen),
        }

    def tell(self, upstream: Upstream | None) -> None:
        """Store the isolation of a started process. Log the isolation if it has changed."""
        held = getattr(upstream, "held", {})
        if held != self.now:
            lacking = [what for what, in_force in held.items() if not in_force]
            about = {"server": self._server, "lacking": lacking}
            log.log(logging.WARNING if lacking else logging.INFO, "server.isolated", extra=about)
        self.now = held
        self._upstream, self._unseen = upstream, {}
        self._log_files()

    def ended(self, upstream: Upstream | None) -> None:
        """Log the hidden files of a process that has ended."""
        self._upstream = upstream
        self._log_files()

    def _log_files(self) -> None:
        self._unseen = dict(getattr(self._upstream, "denied_files", self._unseen))
        if new := self._unseen.keys() - self._logged:
            self._logged |= new
            files = {path: self._unseen[path] for path in sorted(new)}
            about = {"server": self._server, "lines": lines_for(self._server, files)}
            log.warning("server.files_hidden", extra=about)


def lines_for(server: str, files: Mapping[str, str]) -> list[str]:
    """Return the configuration lines that would make these files visible."""
    lines = []
    for kind in sorted(set(files.values())):
        paths = ", ".join(path for path in sorted(files) if files[path] == kind)
        lines.append(f"servers.{server}.files: {{{kind}: [{paths}]}}")
    return lines
