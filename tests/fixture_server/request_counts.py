"""Counts of what reached this server, so that a test can detect a vacuous pass."""

import json
from collections import Counter, deque
from pathlib import Path
from typing import Any

from .wire import Json

_KEPT = 500


class Seen:
    """Counts since the start, and the last calls whole. `file` is for servers over stdio."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self.forget()

    def forget(self) -> None:
        """Reset the counts."""
        self.methods: Counter[str] = Counter()
        self.tools: Counter[str] = Counter()
        self.prompts: Counter[str] = Counter()
        self.resources: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.last: deque[Json] = deque(maxlen=_KEPT)

    def request(self, family: str, method: str, params: Json, headers: Json) -> None:
        """Count a request."""
        self.methods[method] += 1
        counter, key = {
            "tools/call": (self.tools, "name"),
            "prompts/get": (self.prompts, "name"),
            "resources/read": (self.resources, "uri"),
        }.get(method, (None, ""))
        if counter is not None:
            counter[str(params.get(key))] += 1
        self.last.append({"family": family, "method": method, "params": params, "headers": headers})
        self._write()

    def cancel(self, subject: str) -> None:
        """Count the cancellation of a request."""
        self.cancelled[subject] += 1
        self._write()

    @property
    def counts(self) -> dict[str, Any]:
        """All counts as JSON."""
        counters = ("methods", "tools", "prompts", "resources", "cancelled")
        return {
            **{name: dict(getattr(self, name)) for name in counters},
            "last": list(self.last),
        }

    def _write(self) -> None:
        if self._file is not None:
            self._file.write_text(json.dumps(self.counts))
