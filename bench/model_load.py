"""Closed-loop load of streamed chat completions on any gateway.

Usage, as its own process: `python bench/model_load.py '{"url": …}'` prints one JSON object. The
text of every stream is compared with the text that the mock provider generates for the request.
Latencies are milliseconds; `first_ms` is the time to the first part of the text.
"""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

import msgspec
import uvloop

HEAD_END, LAST_CHUNK = b"\r\n\r\n", b"\r\n0\r\n\r\n"
PREFIX, DONE = b"data: ", b"data: [DONE]"
WAIT_SECONDS = 60.0
decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Plan:
    """The gateway, the model, the expected parts of text, the concurrency, and the seconds."""

    url: str
    headers: dict[str, str]
    model: str
    chunks: int
    connections: int
    seconds: float
    warm_seconds: float = 0.5


@dataclass(slots=True)
class Tally:
    """The counts after the warm-up, and the number of all requests."""

    counting: bool = False
    requests: int = 0
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    wrong: int = 0
    example: str = ""


async def run(plan: Plan) -> dict[str, object]:
    """Run the load for the planned time and return the figures after the warm-up."""
    tally, stop = Tally(), asyncio.Event()
    clients = [
        asyncio.create_task(_client(plan, tally, stop, number))
        for number in range(plan.connections)
    ]
    await asyncio.sleep(plan.warm_seconds)
    tally.counting, began = True, perf_counter()
    await asyncio.sleep(plan.seconds)
    stop.set()
    await asyncio.gather(*clients)  # slow gateways need longer than the planned time for a stream
    took = perf_counter() - began
    first, whole = sorted(tally.first), sorted(tally.whole)
    if not whole:
        raise SystemExit(f"no complete stream from {plan.url}: {tally.example}")
    return {
        "requests": len(whole),
        "all_requests": tally.requests,
        "wrong": tally.wrong,
        "example": tally.example,
        "per_second": len(whole) / took,
        "first_ms": first[len(first) // 2],
        "p50_ms": whole[len(whole) // 2],
        "p99_ms": whole[int(len(whole) * 0.99)],
    }


async def _client(plan: Plan, tally: Tally, stop: asyncio.Event, number: int) -> None:
    parts = urlsplit(plan.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**22)
    count = 0
    try:
        while not stop.is_set():
            count += 1
            tally.requests += 1
            marker = f"{number:03}{count:05}"
            writer.write(_request(plan, marker))
            began = perf_counter()
            async with asyncio.timeout(WAIT_SECONDS):
                body, first = await _stream(reader, marker.encode())
            took = perf_counter() - began
            if fault := _fault(body, marker, plan.chunks):
                tally.wrong += 1
                tally.example = fault
            elif tally.counting:
                tally.first.append((first - began) * 1000)
                tally.whole.append(took * 1000)
    finally:
        writer.close()


def _request(plan: Plan, marker: str) -> bytes:
    parts = urlsplit(plan.url)
    messages = [{"role": "user", "content": marker}]
    body = json.dumps({"model": plan.model, "messages": messages, "stream": True})
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in plan.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def _stream(reader: asyncio.StreamReader, marker: bytes) -> tuple[bytes, float]:
    """Return the bytes of a chunked response, and the time at which its text began."""
    head = await reader.readuntil(HEAD_END)
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"unexpected response: {head.decode('latin-1')[:300]}")
    data, first = bytearray(), 0.0
    while not data.endswith(LAST_CHUNK):
        received = await reader.read(2**18)
        if not received:
            raise SystemExit(f"the connection was closed after {bytes(data[-300:])!r}")
        data += received
        if not first and marker in data:
            first = perf_counter()
    return bytes(data), first


def _fault(data: bytes, marker: str, chunks: int) -> str:
    """Return a stream that is wrong, otherwise an empty text."""
    body = _joined(data)
    events = [line[len(PREFIX) :] for line in body.split(b"\n") if line.startswith(PREFIX + b"{")]
    texts = [
        choice["delta"].get("content") or ""
        for event in map(decode, events)
        for choice in event.get("choices", ())
    ]
    wanted = f"{marker} " + "".join(f"w{each} " for each in range(1, chunks))
    right = "".join(texts) == wanted and DONE in body
    return "" if right else body[-400:].decode("latin-1")


def _joined(data: bytes) -> bytes:
    """Return the content of a chunked transfer coding (RFC 9112, 7.1)."""
    parts, at = [], 0
    while size := int(data[at : (end := data.index(b"\r\n", at))], 16):
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 4 + size
    return b"".join(parts)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(Plan(**json.loads(sys.argv[1]))))))
