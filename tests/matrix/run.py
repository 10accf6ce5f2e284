"""Command behind `make matrix [CLIENT=word] [UPSTREAM=name]`; prints a table."""

import argparse
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking
from matrix import page, table
from matrix.clients import CLIENTS, WORKSHOP, Client
from matrix.drivers.report import ACTIONS, FAILED, OK
from matrix.evidence import missing
from matrix.expected import Expected
from matrix.table import Cell
from matrix.upstreams import NAMES, Upstream, upstreams

KEY = "tbk_matrix_a-secret-of-the-matrix-run"
OUTPUT = WORKSHOP / "out"
AT_ONCE = 2
DRIVER_SECONDS = 300
LISTED_SECONDS = 30.0


def main() -> int:
    """Run drivers; return 1 after an unexpected failure or an unexpected pass."""
    given = _arguments()
    clients = [client for client in CLIENTS if given.client.lower() in client.name.lower()]
    for client in clients:
        client.install()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    with upstreams(OUTPUT) as servers, _gateway(servers) as launched:
        names = [name for name in NAMES if given.upstream in name]
        cells = _run(clients, {name: servers[name] for name in names}, launched)
    expected = Expected.read()
    table.show(cells, expected)
    if not (given.client or given.upstream):
        page.write(cells, expected)
    return _close(cells, expected, whole=not (given.client or given.upstream))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", default="", help="clients whose name contains this")
    parser.add_argument("--upstream", default="", help=f"of {', '.join(NAMES)}")
    return parser.parse_args()


@contextmanager
def _gateway(servers: dict[str, Upstream]) -> Iterator[Launched]:
    """Run one gateway with all five servers."""
    directory = OUTPUT / "gateway"
    directory.mkdir()
    launched = Launched(directory)
    launched.configure(
        {
            "servers": {name: server.declared for name, server in servers.items()},
            "keys": {"matrix": {"secret": KEY, "tools": ["*"]}},
        }
    )
    try:
        launched.start()
        _wait_for_tools(launched)
        yield launched
    finally:
        launched.stop()


def _wait_for_tools(launched: Launched) -> None:
    """Wait until every server's tools are listed; a missing server fails in its own cells."""

    def listed() -> bool:
        names = launched.client(KEY).tools()
        return all(any(name.startswith(f"{server}__") for name in names) for server in NAMES)

    with suppress(AssertionError):
        until_blocking(listed, "the tools of every server", LISTED_SECONDS)
    until_blocking(launched.up_to_date, "every service knows them")


def _run(clients: list[Client], servers: dict[str, Upstream], launched: Launched) -> list[Cell]:
    """Run two drivers at once, never two at one server.

    Over one pipe, a server's request during two calls cannot be assigned to either.
    """
    locks = {name: Lock() for name in servers}

    def drive(client: Client, name: str) -> list[Cell]:
        with locks[name]:
            return _drive(client, name, servers[name], launched)

    order = list(servers)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running: list[Future[list[Cell]]] = [
            pool.submit(drive, client, order[(shift + number) % len(order)])
            for shift, client in enumerate(clients)
            for number in range(len(order))
        ]
        return [cell for future in running for cell in future.result()]


def _drive(client: Client, name: str, upstream: Upstream, launched: Launched) -> list[Cell]:
    nonce = f"n{secrets.token_hex(6)}"
    before = upstream.seen()
    given = {
        "endpoint": launched.ready["endpoint"],
        "key": KEY,
        "server": name,
        "nonce": nonce,
        "family": client.family,
        "actions": list(ACTIONS),
        "flavour": client.flavour,
    }
    log = OUTPUT / f"{client.name} at {name}.log".replace(" ", "-")
    result = _lines(client, given, log)
    cells = []
    for action in ACTIONS:
        line = result.get(action, {"outcome": FAILED, "detail": f"no report; see {log.name}"})
        cell = Cell(client, name, action, line["outcome"], line["detail"])
        if cell.outcome == OK and (lack := missing(action, nonce, before, upstream)):
            cell = replace(cell, outcome=FAILED, detail=lack)
        cells.append(cell)
    failed = ", ".join(cell.action for cell in cells if cell.outcome == FAILED)
    print(f"{client.name} at {name}: {failed or 'ok'}", flush=True)
    return cells


def _lines(client: Client, given: dict[str, Any], log: Path) -> dict[str, dict[str, str]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            client.command(given),
            cwd=client.directory,
            env=client.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            out, _ = process.communicate(timeout=DRIVER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
    fields: dict[str, dict[str, str]] = {}
    for line in out.decode().splitlines():
        with suppress(ValueError, TypeError, KeyError):
            found = json.loads(line)
            fields[found["action"]] = found
    return fields


def _close(cells: list[Cell], expected: Expected, *, whole: bool) -> int:
    complaints = expected.complaints(cells, whole=whole)
    for complaint in complaints:
        print(f"BAD {complaint}")
    counts = {kind: sum(cell.outcome == kind for cell in cells) for kind in (OK, FAILED)}
    without = len(cells) - sum(counts.values())
    print(f"{counts[OK]} ok, {counts[FAILED]} failed, {without} the client has no API for")
    return 1 if complaints or not cells else 0


if __name__ == "__main__":
    sys.exit(main())
