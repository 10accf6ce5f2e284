"""Commands `toolbus`, forked from a process that has already imported them."""

import json
import shlex
import socketserver
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from threading import Thread

from harness.gateway.forked_services import Forked, Streams

PROGRAM = Path(__file__).parents[1] / "programs" / "forked_toolbus.py"
CLIENT = PROGRAM.with_name("command_client.py")
COMMAND_SECONDS = 180.0


def run_forked(
    words: Sequence[str], directory: Path, environment: dict[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises `subprocess.TimeoutExpired`."""
    with tempfile.TemporaryDirectory(prefix="toolbus-command-") as temporary:
        given, output, errors = (Path(temporary, name) for name in ("in", "out", "err"))
        given.write_text(stdin)
        streams = Streams(output, errors, given, directory)
        process = Forked(PROGRAM, words, environment, output, streams)
        try:
            code = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(words, code, output.read_text(), errors.read_text())


@contextmanager
def commands_for_shells() -> Iterator[Path]:
    """Yield a directory for `PATH` with a program `toolbus`, whose commands are forked.

    A start of the installed program takes 0.7 seconds of processor time.
    """
    with tempfile.TemporaryDirectory(prefix="toolbus-commands-") as temporary:
        directory = Path(temporary)
        program, address = directory / "toolbus", directory / "socket"
        client = shlex.join([sys.executable, "-ISE", str(CLIENT), str(address)])
        program.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
        program.chmod(0o755)
        with _Server(str(address), _Handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield directory
            finally:
                server.shutdown()
                thread.join()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Handler(socketserver.StreamRequestHandler):
    """The command of one client: it has the client's streams, and ends with the client."""

    def handle(self) -> None:
        pid, words, directory, environment = json.loads(self.rfile.readline())
        given, output, errors = (Path(f"/proc/{pid}/fd/{number}") for number in range(3))
        streams = Streams(output, errors, given, Path(directory))
        process = Forked(PROGRAM, words, environment, output, streams)
        connection.wait([process.sentinel, self.connection])
        process.kill()
        code = process.wait()
        self.wfile.write(bytes([code if code >= 0 else 128 - code]))
