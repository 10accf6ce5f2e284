"""Boundary of the sandbox: seccomp filter, forged messages, hosts without protection."""

import asyncio
import json
import platform
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from toolbus_codemode.sandbox.linux import seccomp
from toolbus_codemode.sandbox.process.launcher import UnavailableError
from toolbus_codemode.sandbox.program import Function, Namespace, Program, ToolCall, ToolOutcome
from toolbus_codemode.sandbox.protocol import ProgramFailed
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings
from toolbus_codemode.sandbox.session import BrokenError, Session

SYSCALLS = Path(__file__).resolve().parents[4] / "bench" / "sandbox_syscalls.py"
UNPRIVILEGED = """
import os, subprocess
from toolbus_codemode.sandbox.linux import hardening
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
    hardening.libc.prctl(hardening.PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after a start by this user
hardening.unshare()
script = os.memfd_create("worker", 0)
os.write(script, b"#!/bin/sh\\necho started\\n")
subprocess.run([f"/proc/{os.getpid()}/fd/{script}"], check=True)
"""
TOOLS = (Namespace("gh", "github", (Function("read", "read", ("n",)),)),)
KILLED, ALLOWED = seccomp.KILL, seccomp.ALLOW
CALL = {"id": 1, "namespace": "gh", "function": "read", "arguments": {}}


def verdict(code: bytes, data: bytes) -> int:
    """Return a filter's verdict on a call; interprets the BPF instructions the filters use."""
    at, held = 0, 0
    while True:
        kind, yes, no, operand = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if kind == seccomp.LOAD:
            held = int.from_bytes(data[operand : operand + 4], "little")
        elif kind == seccomp.MASK:
            held &= operand
        elif kind == seccomp.EQUAL:
            at += yes if held == operand else no
        elif kind == seccomp.ABOVE:
            at += yes if held >= operand else no
        else:
            return int(operand)


def syscall(number: int, *arguments: int, architecture: int) -> bytes:
    """Return a system call in the form the kernel passes to a filter."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    return struct.pack("=IIQ6Q", number, architecture, 0, *padded)


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_filter_allows_what_is_listed_and_kills_the_rest(machine: str) -> None:
    code = seccomp.compiled(seccomp.for_calculating(pid=7), machine)
    numbers, here = seccomp.NUMBERS[machine], seccomp.ARCHITECTURES[machine]
    allowed = {
        number
        for number in range(600)
        if verdict(code, syscall(number, 7, architecture=here)) == ALLOWED
    }
    listed = {numbers[r.call] for r in seccomp.for_calculating(7) if r.call in numbers}
    assert allowed == listed
    assert len(listed) <= 25


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_filter_checks_arguments_and_architecture(machine: str) -> None:
    code = seccomp.compiled(seccomp.for_calculating(pid=7), machine)
    numbers, here = seccomp.NUMBERS[machine], seccomp.ARCHITECTURES[machine]
    executable = syscall(numbers["mmap"], 0, 4096, 7, architecture=here)
    to_another = syscall(numbers["tgkill"], 8, 8, 9, architecture=here)
    foreign = syscall(numbers["read"], architecture=0x40000003)
    x32 = syscall(seccomp.X32 | numbers["read"], architecture=here)
    assert {verdict(code, data) for data in (executable, to_another, foreign, x32)} == {KILLED}


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_a_loaded_program_may_start_threads_but_no_processes(machine: str) -> None:
    code = seccomp.compiled(seccomp.for_a_loaded_program(pid=7), machine)
    numbers, here = seccomp.NUMBERS[machine], seccomp.ARCHITECTURES[machine]
    thread = syscall(numbers["clone"], seccomp.CLONE_THREAD | 0x100, architecture=here)
    process = syscall(numbers["clone"], 17, architecture=here)
    assert (verdict(code, thread), verdict(code, process)) == (ALLOWED, KILLED)
    writing = syscall(numbers["openat"], 0, 0, 1, architecture=here)
    assert verdict(code, writing) & 0xFFFF0000 == seccomp.REFUSE


@pytest.mark.skipif(platform.machine() not in seccomp.NUMBERS, reason="no table for it")
def test_a_forbidden_call_from_native_code_kills_the_child() -> None:
    done = subprocess.run(
        [sys.executable, str(SYSCALLS), "--few"], capture_output=True, check=True, timeout=300
    )
    body = json.loads(done.stdout)
    assert body["tried"] >= 4
    assert body["survivors"] == {}


async def receive(data: bytes) -> tuple[object, list[ToolCall]]:
    """Return the session's outcome and calls after a child sends this and closes."""
    made: list[ToolCall] = []

    async def call(wanted: ToolCall) -> ToolOutcome:
        made.append(wanted)
        return ToolOutcome()

    own_end, child_end = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=own_end)
    talk = Session(Program("1", tools=TOOLS), call, reader, writer)
    child_end.sendall(data)
    child_end.shutdown(socket.SHUT_WR)
    try:
        return await talk.hold(), made
    finally:
        writer.transport.abort()
        child_end.close()


def framed(message: object) -> bytes:
    body = json.dumps(message).encode()
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "message",
    [
        {"type": "Calls", "calls": []},
        {"type": "Calls", "calls": [CALL | {"function": "secret"}]},
        {"type": "Calls", "calls": [CALL | {"namespace": "billing"}]},
        {"type": "Calls", "calls": [CALL | {"server": "github"}]},
        {"type": "Calls", "calls": [CALL] * 101},
        {"type": "Start", "source": "1"},
        {"type": "Done"},
        [[[]]],
        None,
    ],
)
async def test_a_forged_message_ends_the_run_without_a_call(message: object) -> None:
    with pytest.raises(BrokenError):
        await receive(framed(message))


async def test_a_message_with_too_large_a_length_is_not_read() -> None:
    message, made = await receive(b"\xff\xff\xff\xffxx")
    assert isinstance(message, ProgramFailed)
    assert (message.name, made) == ("message_too_large", [])


async def test_a_deep_message_is_rejected() -> None:
    body = b'{"type":"Calls","calls":' + b"[" * 100_000
    with pytest.raises(BrokenError):
        await receive(len(body).to_bytes(4, "big") + body)


def test_without_seccomp_an_engine_is_unavailable_unless_the_operator_allows_it() -> None:
    with pytest.raises(UnavailableError, match="no seccomp"):
        Sandbox().record_protections("starlark", {"seccomp": False, "landlock": True})
    allowed = Sandbox(SandboxSettings(without_seccomp=True))
    allowed.record_protections("starlark", {"seccomp": False})
    assert [each.in_force for each in allowed.protections] == [False]


def test_an_unprivileged_host_starts_a_worker_from_a_file_of_its_own() -> None:
    """In a user namespace, the host has capabilities that a worker, which it starts, has not."""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("started\n", "")
