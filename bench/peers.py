"""Toolbus and other gateways in one run, every reply checked (`make bench-peers`).

Each gateway forwards calls to the same upstream with one tool. Peers from PyPI are installed into
environments of their own. `--peer NAME=URL` measures any other gateway that already forwards to an
upstream with a tool `echo`; `--header NAME=HEADER:VALUE` adds a header for it, and the CPU of its
processes is not counted. The gateways do different work: each row says which.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from rich.table import Table

from figures import console, keep, load
from peer_load import Plan
from processes import cpu_seconds
from run import SECRET, echoing, end, free_port, gateway, machine, processes_of, quiet

HERE = Path(__file__).parent
WORKSHOP = HERE.parent / ".venv" / "peers"
PROMISES = ("key", "budget", "durable intent", "audit")
START_SECONDS = 120.0
INSTALL_SECONDS = 900.0


@dataclass(frozen=True)
class Peer:
    """One measured gateway. `pids` are its processes; `does` names what it does for each call."""

    name: str
    url: str
    does: tuple[str, ...]
    headers: dict[str, str] = field(default_factory=dict)
    pids: tuple[int, ...] = ()
    note: str = ""


def main() -> int:
    """Measure each gateway after the other, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=HEADER:VALUE")
    parser.add_argument("--only", nargs="+", help="names of the rows to measure")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine() | load(), "rows": []}
    with echoing(0) as port:
        starting = {
            "direct": _direct, "Toolbus fused": _toolbus,
            "FastMCP proxy": _fastmcp, "ContextForge": _contextforge,
        }  # fmt: skip
        given = _by_url(options.peer, options.header)
        for name in [*starting, *given]:
            if options.only and name not in options.only:
                continue
            with ExitStack() as stack:
                try:
                    peer = given.get(name) or stack.enter_context(starting[name](port))
                    row = _measured(peer, options)
                except (subprocess.SubprocessError, OSError, TimeoutError) as error:
                    row = {"name": name, "failed": _reason(error)}
            report["rows"].append(row)
            console.print(row["name"], row.get("failed") or f"{row['per_second']:,.0f}/s")
    _show(report["rows"], options.connections)
    keep("peers", report)
    return 1 if any(row.get("wrong") for row in report["rows"]) else 0


def _measured(peer: Peer, options: argparse.Namespace) -> dict[str, Any]:
    plan = Plan(peer.url, peer.headers, connections=options.connections, seconds=options.seconds)
    command = [sys.executable, str(HERE / "peer_load.py"), json.dumps(asdict(plan))]
    before = sum(map(cpu_seconds, peer.pids))
    done = subprocess.run(command, capture_output=True, check=True, timeout=plan.seconds + 240)
    seen: dict[str, Any] = json.loads(done.stdout)
    if peer.pids:
        quiet(list(peer.pids))
        used = sum(map(cpu_seconds, peer.pids)) - before
        seen["cpu_us_per_call"] = used / seen["all_requests"] * 1e6
    missing = [each for each in PROMISES if each not in peer.does]
    return {"name": peer.name, "does": peer.does, "does_not": missing, "note": peer.note, **seen}


def _show(rows: list[dict[str, Any]], connections: int) -> None:
    table = Table(title=f"calls at concurrency {connections}, every reply checked")
    for column in ("gateway", "calls/s", "CPU µs a call", "p50 ms", "p99 ms", "wrong"):
        table.add_column(column)
    for row in rows:
        if "failed" in row:
            table.add_row(row["name"], "not measured")
            continue
        cpu = f"{row['cpu_us_per_call']:,.0f}" if "cpu_us_per_call" in row else "not counted"
        table.add_row(
            row["name"], f"{row['per_second']:,.0f}", cpu, f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}", str(row["wrong"]),
        )  # fmt: skip
    console.print(table)
    for row in rows:
        if "failed" in row:
            console.print(f"{row['name']}: {row['failed']}")
            continue
        does, missing = (", ".join(row[each]) or "nothing" for each in ("does", "does_not"))
        note = f" ({row['note']})" if row["note"] else ""
        console.print(f"{row['name']}: does {does}; does not {missing}{note}")


# -- the gateways --------------------------------------------------------------------------------


@contextmanager
def _direct(port: int) -> Iterator[Peer]:
    url = f"http://127.0.0.1:{port}/mcp"
    _wait(url, lambda: False)
    yield Peer("direct", url, (), note="the upstream itself")


@contextmanager
def _toolbus(port: int) -> Iterator[Peer]:
    headers = {"Authorization": f"Bearer {SECRET}"}
    with gateway("fused", port, 0) as up:
        note = "also grants, rate limit, settlement; CPU with NATS, Valkey and the audit writer"
        pids = tuple(processes_of(up))
        yield Peer("Toolbus fused", up.endpoint, PROMISES, headers, pids, note)


@contextmanager
def _fastmcp(port: int) -> Iterator[Peer]:
    python = installed("fastmcp")
    own = free_port()
    command = [str(python.parent / "fastmcp"), "run", f"http://127.0.0.1:{port}/mcp"]
    command += ["--transport", "http", "--port", str(own), "--no-banner", "--log-level", "ERROR"]
    with running(command, {}, f"http://127.0.0.1:{own}/mcp") as pid:
        note = version(python, "fastmcp")
        yield Peer("FastMCP proxy", f"http://127.0.0.1:{own}/mcp", (), {}, (pid,), note)


@contextmanager
def _contextforge(port: int) -> Iterator[Peer]:
    package = "mcp-contextforge-gateway"
    python = installed(package)
    own = free_port()
    base, secret = f"http://127.0.0.1:{own}", secrets.token_urlsafe(48)
    with tempfile.TemporaryDirectory(prefix="toolbus-peer-") as directory:
        admin = "admin@example.com"
        variables = {
            "JWT_SECRET_KEY": secret, "AUTH_ENCRYPTION_SECRET": secrets.token_urlsafe(48),
            "DATABASE_URL": f"sqlite:///{directory}/peer.db", "CACHE_TYPE": "memory",
            "MCPGATEWAY_UI_ENABLED": "false", "LOG_LEVEL": "ERROR",
            "PLATFORM_ADMIN_EMAIL": admin, "PLATFORM_ADMIN_PASSWORD": secrets.token_urlsafe(16),
            "RATE_LIMITING_ENABLED": "false", "TOOL_RATE_LIMIT": "100000000",
            "SSRF_PROTECTION_ENABLED": "false",
        }  # fmt: skip
        command = [str(python.parent / "mcpgateway"), "--host", "127.0.0.1", "--port", str(own)]
        with running(command, variables, f"{base}/health", Path(directory)) as pid:
            token = subprocess.run(
                [str(python), "-m", "mcpgateway.utils.create_jwt_token", "--username", admin,
                 "--exp", "600", "--secret", secret, "--admin"],
                env=_environment(variables), capture_output=True, check=True, timeout=60,
                cwd=directory, text=True,
            ).stdout.split()[-1]  # fmt: skip
            headers = {"Authorization": f"Bearer {token}"}
            upstream = {
                "name": "bench", "url": f"http://127.0.0.1:{port}/mcp",
                "transport": "STREAMABLEHTTP", "visibility": "public",
            }  # fmt: skip
            sent = {**headers, "Content-Type": "application/json"}
            body = json.dumps(upstream).encode()
            urlopen(Request(f"{base}/gateways", body, sent), timeout=60).close()
            note = f"{version(python, package)}, SQLite, signed token, no rate limit"
            yield Peer("ContextForge", f"{base}/mcp/", ("key",), headers, (pid,), note)


def _by_url(peers: list[str], headers: list[str]) -> dict[str, Peer]:
    sent: dict[str, dict[str, str]] = {}
    for each in headers:
        name, _, header = each.partition("=")
        key, _, value = header.partition(":")
        sent.setdefault(name, {})[key] = value.strip()
    found = dict(each.split("=", 1) for each in peers)
    note = "not known to this command"
    return {name: Peer(name, url, (), sent.get(name, {}), (), note) for name, url in found.items()}


# -- processes -------------------------------------------------------------------------------------


def installed(package: str) -> Path:
    """Return the interpreter of an environment with a package from PyPI."""
    home = WORKSHOP / package.partition("[")[0]
    python, done = home / "bin" / "python", home / "installed"
    if not done.exists():
        console.print(f"installing {package}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", package]
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
        done.touch()
    return python


def version(python: Path, package: str) -> str:
    """Return the version of a package in the environment of an interpreter."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _environment(variables: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}


@contextmanager
def running(
    command: list[str], variables: dict[str, str], url: str, directory: Path | None = None
) -> Iterator[int]:
    """Run a gateway until it answers at a URL with any status; yield its process id."""
    environment, quietly = _environment(variables), subprocess.DEVNULL
    process = subprocess.Popen(
        command, env=environment, cwd=directory, stdout=quietly, stderr=quietly
    )
    try:
        _wait(url, lambda: process.poll() is not None)
        yield process.pid
    finally:
        end(process)


def _wait(url: str, ended: Callable[[], bool]) -> None:
    give_up = monotonic() + START_SECONDS
    while not _answers(url):
        if ended() or monotonic() > give_up:
            raise TimeoutError(f"{url} does not answer")
        sleep(0.2)


def _answers(url: str) -> bool:
    try:
        urlopen(url, timeout=5).close()
    except URLError as error:
        return hasattr(error, "code")
    except OSError:
        return False
    return True


def _reason(error: Exception) -> str:
    stderr = getattr(error, "stderr", None)
    text = stderr.decode("latin-1") if isinstance(stderr, bytes) else stderr
    return (text or str(error)).strip()[-300:]


if __name__ == "__main__":
    sys.exit(main())
