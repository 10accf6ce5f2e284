"""Closed-loop HTTP load: each connection sends its next request after a checked answer.

Usage, as its own process: `python bench/load.py '{"url": …}'` prints one JSON object. Latencies are
milliseconds; `cpu_us` is this process's own CPU per request.
"""

import asyncio
import json
import resource
import sys
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import uvloop

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"


@dataclass(slots=True)
class Plan:
    """The requests, the expected answer, and the duration in seconds."""

    url: str
    key: str
    body: str
    headers: dict[str, str]
    expect: str
    connections: int
    seconds: float
    warm_seconds: float = 0.5
    exact: bool = False  # the answer must contain the request's own marker

    def request(self) -> bytes:
        """Return the request's bytes, with `@@@@@@@@` in place of a marker."""
        parts = urlsplit(self.url)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append(f"Content-Length: {len(self.body.encode())}")
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode()


@dataclass(slots=True)
class Tally:
    """The counts after the warm-up."""

    counting: bool = False
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    example: str = ""


class Connection(asyncio.Protocol):
    """One connection: a request, its checked answer, the next request."""

    def __init__(self, plan: Plan, tally: Tally, number: int) -> None:
        self._request = plan.request()
        self._expect = plan.expect.encode()
        self._exact = plan.exact
        self._tally = tally
        self._number = number
        self.sent = 0
        self._marker = b""
        self._began = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport
        self.stop = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that the server closed as a wrong answer."""
        if not self.ended.done():
            if not self.stop:
                self._tally.wrong += 1
                self._tally.example = f"connection lost: {exc}"
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Collect data until the answer is complete."""
        self._buffer = self._buffer + data if self._buffer else data
        head_end = self._buffer.find(HEAD_END)
        if head_end < 0:
            return
        at = self._buffer.lower().find(LENGTH, 0, head_end)
        length_end = self._buffer.find(b"\r", at)
        size = int(self._buffer[at + len(LENGTH) : length_end])
        if len(self._buffer) < head_end + 4 + size:
            return
        answer, self._buffer = self._buffer, b""
        self._check(answer)
        if self.stop:
            self._transport.close()
            self.ended.set_result(None)
        else:
            self._ask()

    def _ask(self) -> None:
        self.sent += 1
        self._marker = b"%03d%05d" % (self._number, self.sent % 100_000)
        self._began = perf_counter()
        self._transport.write(self._request.replace(b"@@@@@@@@", self._marker))

    def _check(self, answer: bytes) -> None:
        took = perf_counter() - self._began
        right = answer.startswith(b"HTTP/1.1 200") and self._expect in answer
        if not right or (self._exact and self._marker not in answer):
            self._tally.wrong += 1
            self._tally.example = answer[-400:].decode("latin-1")
        elif self._tally.counting:
            self._tally.latencies.append(took * 1000)


async def run(plan: Plan) -> dict[str, object]:
    """Run the load for the planned time and return the figures after the warm-up."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(plan.url)
    tally = Tally()
    made = [
        loop.create_connection(
            partial(Connection, plan, tally, number), parts.hostname or "", parts.port or 80
        )
        for number in range(plan.connections)
    ]
    connections = [protocol for _, protocol in await asyncio.gather(*made)]
    await asyncio.sleep(plan.warm_seconds)
    tally.counting, began, cpu = True, perf_counter(), _cpu()
    await asyncio.sleep(plan.seconds)
    tally.counting, took, used = False, perf_counter() - began, _cpu() - cpu
    for connection in connections:
        connection.stop = True
    await asyncio.wait([connection.ended for connection in connections], timeout=10)
    found = sorted(tally.latencies)
    count = len(found)
    if not count:
        raise SystemExit(f"no right answer from {plan.url}: {tally.example}")
    return {
        "requests": count,
        "all_requests": sum(connection.sent for connection in connections),
        "wrong": tally.wrong,
        "example": tally.example,
        "per_second": count / took,
        "p50_ms": found[count // 2],
        "p99_ms": found[int(count * 0.99)],
        "cpu_us": used / count * 1e6,
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    given = sys.argv[1] if sys.argv[1:] else sys.stdin.read()
    print(json.dumps(uvloop.run(run(Plan(**json.loads(given))))))
