"""Ports of ended mock servers, reserved so that no later one gets them.

A gateway identifies authorization servers by URL, so it would take a new one at an old port for the
one it registered at.
"""

import re
from contextlib import ExitStack, suppress
from pathlib import Path

from harness.engines.engine import bound

_PORT = re.compile(rb"\blocalhost:(\d{2,5})\b")


class Spent(ExitStack):
    """Reserves ports until it is closed; the kernel gives a bound port to no other process."""

    def __init__(self) -> None:
        super().__init__()
        self._ports: set[int] = set()

    def hold(self, output: Path) -> None:
        """Reserve the ports in a scenario's output."""
        for file in sorted(output.rglob("*")):
            if file.is_file():
                self._hold({int(each) for each in _PORT.findall(file.read_bytes())})

    def _hold(self, ports: set[int]) -> None:
        for port in ports - self._ports:
            with suppress(OSError):  # another process has it already
                self.enter_context(bound(port))
                self._ports.add(port)
