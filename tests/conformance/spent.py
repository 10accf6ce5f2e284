"""Ports that mock servers have had: no later one gets them.

A gateway knows authorization servers by their URLs, and rightly takes one that is at the same port
for the one it registered at before.
"""

import re
from contextlib import ExitStack, suppress
from pathlib import Path

from harness.engines.engine import bound

_PORT = re.compile(rb"\blocalhost:(\d{2,5})\b")


class Spent(ExitStack):
    """Holds them until it is closed; what is bound is given to nobody who asks for any port."""

    def __init__(self) -> None:
        super().__init__()
        self._ports: set[int] = set()

    def hold(self, output: Path) -> None:
        """Hold those that a scenario's output names."""
        for file in sorted(output.rglob("*")):
            if file.is_file():
                self._hold({int(each) for each in _PORT.findall(file.read_bytes())})

    def _hold(self, ports: set[int]) -> None:
        for port in ports - self._ports:
            with suppress(OSError):  # somebody else has it already, who is no mock server
                self.enter_context(bound(port))
                self._ports.add(port)
