"""Throughput of tool calls over REST: `python bench/tools_api.py --seconds 20`.

The gateway is `toolbus up` in front of the benchmark's upstream. Sixteen connections each send the
same request again as soon as the answer is complete; every answer must have status 200.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from time import monotonic

from harness.engines.engine import Engine
from harness.gateway.launched_gateway import Launched

HERE = Path(__file__).parent
KEY = "tbk_bench_a-secret-of-the-bench"
CONNECTIONS = 16
TOOL = "echo__echo"


class Echo(Engine):
    """The benchmark's upstream."""

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, str(HERE / "echo_upstream.py"), "--port", str(self.port)]


def request_bytes(tool: str) -> bytes:
    """Return the request of one tool call."""
    function = {"name": tool, "arguments": json.dumps({"text": "hello"})}
    body = json.dumps({"id": "call_1", "type": "function", "function": function}).encode()
    head = (
        "POST /v1/mcp/tools/execute HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def repeat(port: int, request: bytes, until: float) -> int:
    """Return the number of answers that one connection received."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = 0
    while monotonic() < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"A call failed: {head.decode()}{body.decode()}")
        answers += 1
    writer.close()
    return answers


async def measured(port: int, seconds: float) -> float:
    """Return the calls per second of all connections together."""
    request = request_bytes(TOOL)
    await repeat(port, request, monotonic() + 2)  # warm up
    began = monotonic()
    until = began + seconds
    counts = await asyncio.gather(*(repeat(port, request, until) for _ in range(CONNECTIONS)))
    return sum(counts) / (monotonic() - began)


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds: float = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory:
        echo, gateway = Echo(Path(directory) / "echo"), Launched(Path(directory) / "gateway")
        gateway.directory.mkdir()
        configuration = {
            "servers": {"echo": {"url": f"http://127.0.0.1:{echo.port}/mcp"}},
            "keys": {"bench": {"secret": KEY, "tools": ["*"]}},
        }
        with echo.running(), gateway.running(configuration):
            gateway.until_listed(gateway.client(KEY), TOOL)
            rate = asyncio.run(measured(gateway.port, seconds))
    print(f"{rate:.0f} calls/s over {CONNECTIONS} connections in {seconds:.0f} s")


if __name__ == "__main__":
    main()
