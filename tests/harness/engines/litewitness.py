"""Third-party witness: litewitness of filippo.io/torchwood. Its key is in an ssh-agent."""

import base64
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from harness.engines.engine import own_port
from harness.waits import until_blocking

NAME = "witness.example/litewitness"
PROGRAM = Path(__file__).resolve().parents[3] / "build" / "bin" / "litewitness"


@dataclass
class LiteWitness:
    """A running litewitness: URL, verifier key and database."""

    url: str
    verifier: str
    database: Path

    def add_log(self, origin: str, key: str) -> None:
        """Register a log in the same way as `witnessctl add-log`."""
        empty = base64.b64encode(sha256(b"").digest()).decode()
        with sqlite3.connect(self.database, timeout=30) as rows:
            rows.execute("INSERT INTO log VALUES (?, 0, ?)", (origin, empty))
            rows.execute("INSERT INTO key VALUES (?, ?)", (origin, key))

    def set_ahead(self, origin: str, size: int) -> None:
        """Store a tree size for a log that is larger than the log."""
        root = base64.b64encode(sha256(b"other").digest()).decode()
        with sqlite3.connect(self.database, timeout=30) as rows:
            rows.execute(
                "UPDATE log SET tree_size = ?, tree_hash = ? WHERE origin = ?", (size, root, origin)
            )

    def size(self, origin: str) -> int:
        """Return the tree size of the last cosigned checkpoint of a log."""
        with sqlite3.connect(self.database, timeout=30) as rows:
            ((size,),) = rows.execute("SELECT tree_size FROM log WHERE origin = ?", (origin,))
        return int(size)


@contextmanager
def litewitness(directory: Path) -> Iterator[LiteWitness]:
    """Run litewitness on a separate port."""
    key, socket = directory / "witness_key", directory / "agent"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with _running(["ssh-agent", "-D", "-a", str(socket)], directory / "agent.log"):
        until_blocking(socket.exists, "the agent listens")
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", key], check=True, env=environment)
        result = subprocess.run(
            ["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True
        )
        port, log = own_port(), directory / "witness.log"
        words = [
            str(PROGRAM), f"-name={NAME}", f"-ssh-agent={socket}",
            f"-key={result.stdout.split()[1]}",
            f"-db={directory / 'witness.db'}", f"-listen=127.0.0.1:{port}",
        ]  # fmt: skip
        with _running(words, log):
            found = until_blocking(
                lambda: (
                    "listening" in log.read_text()
                    and re.search(r"vkey=\"?([^\s\"]+)", log.read_text())
                ),
                "litewitness listens",
            )
            yield LiteWitness(f"http://127.0.0.1:{port}", found[1], directory / "witness.db")


@contextmanager
def _running(words: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            process.wait()
