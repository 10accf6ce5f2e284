"""Growth of the executor's memory by one very large result (`make bench-results`).

Every service is its own process. Over HTTP, in one event of a stream, and over stdio: first a small
call, then the large one, then the executor's peak memory, and a read of the result's end by its
handle.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from rich.table import Table

from figures import console, keep, load, met
from harness.clients.bus_operator import key
from harness.clients.mcp_client import Client
from harness.engines.engine import die_with_parent, own_port
from harness.gateway.cluster import Cluster
from harness.upstreams.large_result_server import LINE
from toolbus_common.config import Configuration, Server

HERE = Path(__file__).parent
VAST = HERE.parent / "tests" / "harness" / "upstreams" / "large_result_server.py"
SECRET = "tbk_root_a-secret-of-the-bench"
MAX_GROWTH = 32.0  # MiB
SECONDS = 300.0  # seconds for one call on the slowest machine
TRANSPORTS = {"http": ("http", "text"), "event": ("http", "streamed"), "stdio": ("stdio", "text")}
MIB = 1 << 20


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=TRANSPORTS, help="measure only this transport")
    parser.add_argument("--mib", type=int, default=200, help="size of the large result")
    options = parser.parse_args()
    rows = [
        _measured(transport, options.mib)
        for transport in TRANSPORTS
        if options.transport in (None, transport)
    ]
    table = Table("transport", "result", "seconds", "memory grew", "demand", "read back", "")
    for row in rows:
        table.add_row(
            row["transport"], f"{row['mib']:.0f} MiB", f"{row['seconds']:.1f}",
            f"{row['grew_mib']:.1f} MiB", f"<= {MAX_GROWTH:g} MiB", str(row["read_back"]),
            "" if row["met"] else "MISSED",
        )  # fmt: skip
    console.print(table)
    keep("results", {"after": load(), "rows": rows})
    return 0 if met(rows) else 1


def _measured(transport: str, mib: int) -> dict[str, Any]:
    """Make one large call through its own gateway and return the figures."""
    kind, tool = TRANSPORTS[transport]
    port = own_port()
    upstream = subprocess.Popen([sys.executable, str(VAST), str(port)], preexec_fn=die_with_parent)  # noqa: PLW1509
    where: dict[str, Any] = {"url": f"http://127.0.0.1:{port}/mcp"}
    if kind == "stdio":
        where = {"command": [sys.executable, str(VAST)]}
    server = Server(**where, timeout=SECONDS)
    declared = Configuration(servers={"vast": server.model_dump()}, keys={"root": key(SECRET)})
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory), TOOLBUS_CALL_TIMEOUT=str(SECONDS))
        try:
            cluster.start(declared)
            client = Client(cluster.client(SECRET).endpoint, SECRET, SECONDS)
            cluster.until_listed(client, f"vast__{tool}")
            return {
                "transport": transport,
                **_one(client, tool, mib, cluster.processes["executor"][0].pid),
            }
        finally:
            cluster.stop()
            upstream.terminate()
            upstream.wait()


def _one(client: Client, tool: str, mib: int, pid: int) -> dict[str, Any]:
    for _ in range(3):
        client.call(f"vast__{tool}", {"bytes": 1000})
    before = _memory(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # reset the peak memory
    began = monotonic()
    link = client.call(f"vast__{tool}", {"bytes": mib * MIB}).json["result"]["content"][1]
    took, grew = monotonic() - began, _memory(pid, "VmHWM") - before
    length = len(LINE.encode())
    uri = f"{link['uri']}?offset={link['size'] - length}&length={length}"
    read = client.request("resources/read", {"uri": uri}).json["result"]["contents"][0]["text"]
    met = grew <= MAX_GROWTH and read == LINE
    size = link["size"] / MIB
    return {
        "mib": mib, "kept_mib": size, "seconds": took, "before_mib": before, "grew_mib": grew,
        "most_mib": MAX_GROWTH, "read_back": read == LINE, "met": met,
    }  # fmt: skip


def _memory(pid: int, name: str) -> float:
    """Return a value of a process's memory status, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
