"""Isolation of server processes on this machine's kernel: reach, limits, and complete clean-up."""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.programs.marked_processes import children, marked, strays
from harness.services.call_runner import CallRunner
from harness.waits import until, until_blocking
from toolbus_common.config.servers.isolation import Files, Limits
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.isolation.capability_probe import probe
from toolbus_executor.isolation.child_process import Child
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.settings import Settings
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream

WITH_AND_WITHOUT_NAMESPACES = pytest.mark.parametrize("namespaces", [True, False])
# Leaves its process group, session and parent's signals behind, and retains every pipe.
STRAY = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if len(sys.argv) < 3:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)",
                                      sys.argv[1], "stray"])
    os._exit(0)
print("begun", flush=True)
"""
STAYS = STRAY + "time.sleep(600)"


def ran(script: str, isolation: Isolation, *words: str) -> tuple[Any, dict[str, bool]]:
    """Return the JSON output of an isolated program, and the isolation that was enforced."""
    command = isolation.around([sys.executable, "-c", script, *words])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    first, _, message = done.stderr.partition("\n")
    assert first.startswith("isolation: "), done.stderr
    assert done.returncode == 0, message
    result = first.removeprefix("isolation: ").split(", ")
    return json.loads(done.stdout), {each[1:]: each[0] == "+" for each in result}


@WITH_AND_WITHOUT_NAMESPACES
async def test_no_process_started_by_a_server_outlives_it(mark: str, *, namespaces: bool) -> None:
    before = children()
    lines: list[bytes] = []
    child = Child(lines.append)
    held = Isolation(namespaces=namespaces)
    await child.start([sys.executable, "-c", STAYS, mark], dict(os.environ), None, held)
    try:
        await until(lambda: lines and strays(mark), "a stray process")
    finally:
        await child.close()
    assert marked(mark) == []
    assert children() <= before


@WITH_AND_WITHOUT_NAMESPACES
async def test_no_process_is_left_of_a_server_that_exits(mark: str, *, namespaces: bool) -> None:
    before = children()
    child = Child(lambda _line: None)
    held = Isolation(namespaces=namespaces)
    script = STRAY + "sys.exit(3)"
    await child.start([sys.executable, "-c", script, mark], dict(os.environ), None, held)
    try:
        assert "exited with 3" in await child.ended
        assert marked(mark) == []
    finally:
        await child.close()
    assert children() <= before


async def test_the_exit_of_a_server_is_reported_long_after_its_output_ended() -> None:
    child = Child(lambda _line: None)
    script = "import os, sys, time\nos.close(1)\ntime.sleep(1)\nsys.exit(3)"
    await child.start([sys.executable, "-c", script], dict(os.environ), None, Isolation())
    try:
        assert await child.ended == "it exited with 3"
    finally:
        await child.close()


@WITH_AND_WITHOUT_NAMESPACES
def test_no_process_is_left_when_the_executor_is_killed(mark: str, *, namespaces: bool) -> None:
    executor = (
        "import subprocess, sys\n"
        "from toolbus_executor.isolation.plan import Isolation\n"
        f"command = [sys.executable, '-c', {STAYS!r}, sys.argv[1]]\n"
        f"around = Isolation(namespaces={namespaces}).around(command)\n"
        "subprocess.run(around, stdin=subprocess.PIPE)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", executor, mark], stdout=subprocess.PIPE)
    with parent:
        try:
            until_blocking(lambda: strays(mark), "a stray process")
        finally:
            parent.kill()
    until_blocking(lambda: marked(mark) == [], "their end")


async def test_with_namespaces_a_server_ends_with_its_supervisor(mark: str) -> None:
    lines: list[bytes] = []
    child = Child(lines.append)
    command = [sys.executable, "-c", STAYS, mark]
    await child.start(command, dict(os.environ), None, Isolation())
    try:
        await until(lambda: lines and strays(mark) and child.held, "a stray process")
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        await child.ended
        if child.held["own processes"]:
            await until(lambda: marked(mark) == [], "their end")
    finally:
        await child.close()


@WITH_AND_WITHOUT_NAMESPACES
def test_the_exit_status_of_a_program_is_reported_unchanged(*, namespaces: bool) -> None:
    held = Isolation(namespaces=namespaces)
    codes = [
        subprocess.run(held.around(["sh", "-c", script]), capture_output=True, check=False)
        for script in ("exit 0", "exit 7", "kill -9 $$", "kill -15 $$")
    ]
    assert [done.returncode for done in codes] == [0, 7, -9, -15]


def test_a_program_can_neither_gain_rights_nor_reach_its_starter(mark: str) -> None:
    script = """
import json, os, signal, sys
def can(what):
    try:
        what()
    except OSError:
        return False
    return True
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
ours = int(sys.argv[1])
print(json.dumps({
    "no_new_privs": status["NoNewPrivs"].strip(),
    "capabilities": int(status["CapBnd"], 16) >> 8,
    "signal": can(lambda: os.kill(ours, 0)),
    "environment": can(lambda: open(f"/proc/{ours}/environ").read()),
}))
"""
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", mark])
    with victim:
        try:
            result, held = ran(script, Isolation(), str(victim.pid))
        finally:
            victim.kill()
    assert held["no new privileges"]
    assert (result["no_new_privs"], result["capabilities"] if os.geteuid() == 0 else 0) == ("1", 0)
    assert result["signal"] is not (held["signals"] or held["own processes"])
    assert result["environment"] is not (held["signals"] or held["own /proc"])


REACHES = """
import json, socket, sys
def meets(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True
theirs = meets(int(sys.argv[1]))  # before our own, which in a network of its own may be the same
own = socket.socket()
own.bind(("127.0.0.1", 0))
own.listen()
print(json.dumps([theirs, meets(own.getsockname()[1])]))
"""


@pytest.mark.parametrize(
    ("network", "reached"),
    [("any", [True, True]), ("loopback", [False, True]), ("none", [False, False])],
)
def test_a_server_has_the_configured_network_or_does_not_run(
    network: str, reached: list[bool]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        command = Isolation(network=network).around([sys.executable, "-c", REACHES, port])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "permits no network namespace" in done.stderr:
        assert network != "any"
    else:
        assert json.loads(done.stdout) == reached


def test_a_server_has_the_configured_memory_and_files() -> None:
    script = """
import json, os
def fails(what):
    try:
        what()
    except (MemoryError, OSError):
        return True
    return False
many = []
print(json.dumps([
    fails(lambda: bytearray(100 << 20)),
    fails(lambda: many.extend(os.dup(0) for _ in range(100))),
]))
"""
    assert ran(script, Isolation(limits=Limits(memory=64, files=64)))[0] == [True, True]
    assert ran(script, Isolation())[0] == [False, False]


@pytest.fixture
def control_group(tmp_path: Path) -> Iterator[Path]:
    """Create a control group where this machine permits it, else a directory."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    tree = next((Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2"), tmp_path)
    group_dir = (tree if os.access(tree, os.W_OK) else tmp_path) / f"toolbus-{uuid.uuid4().hex}"
    group_dir.mkdir()
    yield group_dir
    until_blocking(lambda: list(filter(Path.is_dir, group_dir.iterdir())) == [], "the groups' ends")
    group_dir.rmdir()


def test_a_control_group_contains_a_server_and_is_removed_with_it(
    control_group: Path, tmp_path: Path
) -> None:
    script = """
import json, subprocess
subprocess.Popen(["sleep", "600"], start_new_session=True)
print(json.dumps(open("/proc/self/cgroup").read().split()))
"""
    result, held = ran(script, Isolation(cgroup=str(control_group)))
    entered = any(control_group.name in each for each in result)
    assert entered is (control_group.parent != tmp_path)
    assert held["memory of all together"] in (False, entered)


@pytest.mark.parametrize(("namespaces", "heeds"), [(True, "SIG_IGN"), (False, "SIG_DFL")])
async def test_a_server_that_exceeds_its_cpu_time_is_stopped_and_the_limit_named(
    *, namespaces: bool, heeds: str
) -> None:
    script = f"import signal\nsignal.signal(signal.SIGXCPU, signal.{heeds})\nwhile True: pass"
    child = Child(lambda _line: None)
    held = Isolation(namespaces=namespaces, limits=Limits(cpu_seconds=1))
    await child.start([sys.executable, "-c", script], dict(os.environ), None, held)
    try:
        assert await child.ended == (
            "it exceeded limits.cpu_seconds and was ended; raise the limit if it needs more"
        )
    finally:
        await child.close()


async def test_a_process_killed_from_outside_exceeded_no_limit() -> None:
    child = Child(lambda _line: None)
    held = Isolation(limits=Limits(cpu_seconds=60))
    await child.start(["sh", "-c", "kill -9 $$"], dict(os.environ), None, held)
    try:
        assert await child.ended == "it exited with -9"
    finally:
        await child.close()


async def test_total_memory_is_limited_where_there_is_a_control_group(control_group: Path) -> None:
    script = """
import os
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(40 << 20)
        os.write(1, b"held\\n")
        os.read(0, 1)
        os._exit(0)
while True:
    os.wait()
"""
    lines: list[bytes] = []
    child = Child(lines.append)
    held = Isolation(limits=Limits(memory=64), cgroup=str(control_group))
    await child.start([sys.executable, "-c", script], dict(os.environ), None, held)
    try:
        await until(lambda: len(lines) == 4 or child.ended.done(), "memory to be taken")
        ended = child.ended.done() and "limits.memory" in child.ended.result()
        assert ended is child.held["memory of all together"]
    finally:
        await child.close()


async def test_a_starting_executor_logs_which_isolation_the_machine_enforces(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level("INFO"):
        await probe(Settings(state_dir=tmp_path / "state"))
    (items,) = [record for record in caplog.records if record.message == "isolation.probed"]
    message = items.__dict__
    assert "no new privileges" in message["enforced"]
    assert "memory of all together" in message["lacking"]
    assert items.levelname == "WARNING"


async def test_isolation_that_cannot_be_enforced_prevents_the_start(tmp_path: Path) -> None:
    news = CallRunner().news
    missing = str(tmp_path / "missing")
    for isolation, reason in (
        (
            Isolation(files=Files(write=(missing,))),
            f"files contains {missing}, which does not exist",
        ),
        (
            Isolation(limits=Limits(cpu=0.5)),
            "'limits.cpu' needs a control group",
        ),
        (Isolation(network="none", namespaces=False), "no network namespace"),
    ):
        upstream = StdioUpstream(["cat"], {"PATH": os.environ["PATH"]}, "", news, isolation)
        try:
            with pytest.raises(UpstreamDeadError, match=reason):
                await upstream.open()
        finally:
            await upstream.close()
