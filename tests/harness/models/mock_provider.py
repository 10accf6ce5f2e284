"""Mock provider of models: it serves the APIs of OpenAI and Anthropic, and records its requests.

The end of a model's name says how it is served: `NAME:OPTION[=NUMBER],…`. The field `mock` of a
request's body can contain more options. The options are:

- `chunks`: the number of parts of the generated text; `gap`: the milliseconds before each part
- `delay`: the milliseconds before the response; `hang`: no response at all
- `status`: the status of the response; `retry`: its `Retry-After`
- `input`, `cached`, `output`: the reported tokens; `silent`: no tokens are reported
- the field `script` of the body: tool calls of each turn (`harness.models.scripted_calls`)
- `wait`, `cut`, `reset`: after this number of parts, the stream waits until the client disconnects,
  ends without the rest, or ends with a TCP reset
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engines.engine import Engine
from harness.waits import until_blocking


@dataclass
class Received:
    """A request that the provider received.

    `ended` says how its response ended (`complete`, `refused`, `gone`, `cut`, `reset`), and is
    empty before. `parts` are the sent parts of the text, and `usage` are the tokens that it costs.
    """

    number: int
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    ended: str = ""
    parts: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    waits: bool = False


class MockProvider(Engine):
    """A process of `provider_program`."""

    def command(self) -> list[str]:
        """Return the command line."""
        program = Path(__file__).parent / "provider_program.py"
        return [sys.executable, str(program), str(self.port), str(self.log)]

    @property
    def log(self) -> Path:
        """The log of received requests."""
        return self.directory / "requests"

    @property
    def url(self) -> str:
        """The base URL of both APIs."""
        return f"http://127.0.0.1:{self.port}/v1"

    def received(self) -> list[Received]:
        """Return the received requests in their order. A line that is being written is omitted."""
        text = self.log.read_text() if self.log.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        found: dict[int, Received] = {}
        for line in lines:
            if "path" in line:
                found[line["number"]] = Received(**line)
            elif line["number"] in found:  # otherwise it was removed while it was in progress
                vars(found[line["number"]]).update(line)
        return list(found.values())

    def forget(self) -> None:
        """Remove the received requests."""
        self.log.write_bytes(b"")

    def until_ended(self, count: int) -> list[Received]:
        """Wait until at least `count` requests have ended. Return all received requests."""

        def ended() -> list[Received]:
            found = self.received()
            return found if sum(bool(each.ended) for each in found) >= count else []

        return until_blocking(ended, f"the end of {count} requests")  # type: ignore[no-any-return]
