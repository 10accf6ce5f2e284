"""Processes of the gRPC servers of the tests."""

import sys
from pathlib import Path

from harness.apis.rest_process import TESTS
from harness.engines.engine import Engine


class GrpcServer(Engine):
    """A server module as a process. `words` are the arguments after the port."""

    def __init__(
        self, directory: Path, module: str = "harness.apis.grpc_server", words: tuple[str, ...] = ()
    ) -> None:
        super().__init__(directory)
        self._module = module
        self._words = words

    def command(self) -> list[str]:
        """Return the command line."""
        python = ["/usr/bin/env", f"PYTHONPATH={TESTS}", sys.executable]
        return [*python, "-m", self._module, str(self.port), *self._words]

    @property
    def address(self) -> str:
        """The address for clients."""
        return f"grpc://127.0.0.1:{self.port}"
