"""The console with many entries, its live view, and what it costs the calls (`make bench-console`).

Pages: the time to the first contentful paint in Chromium, of an installation with 10,000 keys and
1,000 servers with 10,000 tools, each page opened several times by a browser without a cache. Live:
calls arrive at a fixed rate, and the stream must have each of them, or say that calls were left
out. Cost: CPU of a call alone, with the live view open, and with a page opened every two
seconds, in alternating loads.
"""

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import monotonic, sleep, time
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

from figures import console, keep, load, met, row, show
from harness.clients.console_browser import base_of, shows, signed_in_with
from harness.clients.form_browser import Browser
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking
from processes import cpu_seconds, family
from run import SECRET, call_load, echoing, machine, quiet

ADMIN = "tba_admin_the-secret-of-the-console-bench"
PAGES = ("", "servers", "servers?search=77", "keys", "keys?search=77", "budgets", "live", "calls",
         "servers/s0", "keys/k0", "analytics", "health", "settings")  # fmt: skip
PAINT = (
    "() => (performance.getEntriesByType('paint')"
    ".find(each => each.name == 'first-contentful-paint') || {startTime: NaN}).startTime"
)
MAX_PAINT_MS = 1000
MAX_DELAY_S = 2.0
MAX_COST = 1.03
BATCH = 25
WAYS = ("alone", "live", "pages")


def main() -> int:
    """Run the parts; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--servers", type=int, default=1_000, help="with ten tools each")
    parser.add_argument("--opened", type=int, default=5, help="how often each page is opened")
    parser.add_argument("--rate", type=int, default=500, help="calls per second in the live view")
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of each load")
    parser.add_argument("--pairs", type=int, default=7, help="loads of each kind")
    options = parser.parse_args()
    before = load()
    with gateway(options.keys, options.servers) as launched:
        paints = _paints(launched, options.opened)
        live = _live(launched, options.rate, options.seconds)
        pairs = _costs(launched, options.pairs, options.seconds)
    costs = {how: median(pair[how] / pair["alone"] for pair in pairs) for how in WAYS[1:]}
    rows = [
        row("slowest page: first paint, ms (median of each page)", max(paints.values()), "<=",
            MAX_PAINT_MS),
        row("live view: calls left out without saying so", live["lost"], "<=", 0),
        row("live view: longest delay of a call, s", live["delay"], "<=", MAX_DELAY_S),
        row("CPU of a call, live view open ÷ not", costs["live"], "<=", MAX_COST),
        row("CPU of a call, a page opened every 2 s ÷ none", costs["pages"], "<=", MAX_COST),
    ]  # fmt: skip
    console.print({page or "overview": round(ms) for page, ms in paints.items()}, live)
    show(rows)
    keep("console", {"machine": machine(), "load": before, "options": vars(options), "rows": rows,
                     "paint_ms": paints, "live": live, "pairs": pairs})  # fmt: skip
    return 0 if met(rows) else 1


@contextmanager
def gateway(keys: int, servers: int) -> Iterator[Launched]:
    """Run Toolbus with this number of keys and of connected servers, which have ten tools each."""
    with echoing(10) as port, tempfile.TemporaryDirectory(prefix="toolbus-console-") as name:
        launched = Launched(Path(name))
        rate = {"calls": 100_000_000, "per": "minute"}
        document = {
            "servers": {
                "echo": {"url": f"http://127.0.0.1:{port}/mcp"},
                **{f"s{at}": {"url": f"http://127.0.0.1:{port}/mcp"} for at in range(servers)},
            },
            "keys": {
                "bench": {"secret": SECRET, "tools": ["echo__*"], "rate": rate},
                **{f"k{at}": {"tools": ["echo__*"]} for at in range(keys)},
            },
            "admins": {"root": {"role": "admin", "secret": ADMIN}},
        }
        with launched.running(document):
            browser = signed_in_with(launched, ADMIN)
            for server in ("echo", *(f"s{at}" for at in range(0, servers, 50))):
                page = f"servers/{server}"
                until_blocking(partial(_is_ready, browser, page), f"the server {server}", 600)
            yield launched


def _is_ready(browser: Browser, page: str) -> bool:
    return ">ready<" in shows(browser, page).text


def _paints(launched: Launched, opened: int) -> dict[str, float]:
    """Return the median first contentful paint of each page, in milliseconds."""
    seen: dict[str, list[float]] = {page: [] for page in PAGES}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for _ in range(opened):
            for page, found in seen.items():
                context = chromium.new_context()
                cookies = signed_in_with(launched, ADMIN).cookies
                context.add_cookies(
                    [{"name": name, "value": value, "url": base_of(launched)}
                     for name, value in cookies.items()]
                )  # fmt: skip
                tab = context.new_page()
                answer = tab.goto(f"{base_of(launched)}/console/{page}".rstrip("/"))
                if answer is None or answer.status != 200:
                    raise SystemExit(f"page {page}: {answer and answer.status}")
                tab.wait_for_load_state()
                tab.wait_for_function(f"() => !isNaN(({PAINT})())")
                found.append(float(tab.evaluate(PAINT)))
                context.close()
        chromium.close()
    return {page: median(found) for page, found in seen.items()}


class Watcher:
    """A reader of the live stream, in a thread: what it showed, skipped, and with what delay."""

    def __init__(self, launched: Launched) -> None:
        target = urlsplit(base_of(launched))
        self.shown: set[str] = set()
        self.skipped = 0
        self.sampled = False
        self.delay = 0.0
        self._connection = HTTPConnection(target.hostname or "", target.port, timeout=60)
        headers = {"Authorization": f"Bearer {ADMIN}"}
        self._connection.request("GET", "/api/v1/live", headers=headers)
        self._response = self._connection.getresponse()
        if self._response.status != 200:
            raise SystemExit(f"live view: {self._response.read()!r}")
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        """End the stream."""
        self._connection.close()

    def _read(self) -> None:
        try:
            while line := self._response.readline():
                if line.startswith(b"data: "):
                    self._take(json.loads(line.removeprefix(b"data: ")))
        except (OSError, ValueError, AttributeError):
            return  # closed

    def _take(self, message: dict[str, Any]) -> None:
        self.skipped += message["skipped"]
        self.sampled = self.sampled or message["sampled"]
        for event in message["events"]:
            if event["event"] == "call.completed":
                self.shown.add(event["call_id"])
                self.delay = max(self.delay, time() - event["at"])


def _live(launched: Launched, rate: int, seconds: float) -> dict[str, Any]:
    """Return what the live view did with calls at a fixed rate."""
    watcher = Watcher(launched)
    sleep(1)
    client, calls = launched.client(SECRET), int(rate * seconds)
    began = monotonic()

    def call(number: int) -> None:
        sleep(max(0.0, began + number / rate - monotonic()))
        answer = client.call("echo__echo", {"text": "live"})
        if answer.status != 200:
            raise SystemExit(f"a call failed: {answer.text}")

    with ThreadPoolExecutor(BATCH) as pool:
        list(pool.map(call, range(calls)))
    took = monotonic() - began
    sleep(3)
    watcher.close()
    lost = 0 if watcher.sampled else max(0, calls - len(watcher.shown) - watcher.skipped)
    return {"calls": calls, "rate": calls / took, "shown": len(watcher.shown),
            "skipped": watcher.skipped, "sampled": watcher.sampled, "lost": lost,
            "delay": watcher.delay}  # fmt: skip


def _costs(launched: Launched, pairs: int, seconds: float) -> list[dict[str, float]]:
    """Return the CPU of a call in microseconds, alone and with each use of the console."""
    browser = signed_in_with(launched, ADMIN)
    pids = [pid for root in launched.ready["pids"].values() for pid in family(root)]
    found = []
    for number in range(pairs):
        order = WAYS if number % 2 else WAYS[::-1]
        found.append({each: _cpu_us(launched, pids, browser, each, seconds) for each in order})
        console.print(found[-1])
    return found


def _cpu_us(
    launched: Launched, pids: list[int], browser: Browser, which: str, seconds: float
) -> float:
    before = sum(map(cpu_seconds, pids))
    over = threading.Event()
    watcher = Watcher(launched) if which == "live" else None
    looking = threading.Thread(target=_look, args=(browser, over))
    if which == "pages":
        looking.start()
    seen = call_load(launched.ready["endpoint"], "echo__echo", SECRET, 64, seconds)
    over.set()
    if which == "pages":
        looking.join()
    if watcher:
        watcher.close()
    quiet(pids)
    return (sum(map(cpu_seconds, pids)) - before) / float(seen["all_requests"]) * 1e6


def _look(browser: Browser, over: threading.Event) -> None:
    """Open pages, one every two seconds."""
    while True:
        for page in ("", "calls", "health", "servers"):
            if over.wait(2):
                return
            shows(browser, page)


if __name__ == "__main__":
    sys.exit(main())
