"""Engines that start in the background, and the processes that wait for programs."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from harness.programs.sandbox_tools import AMPLE, Tools
from harness.waits import until
from toolbus_codemode.sandbox.process.launcher import Launcher
from toolbus_codemode.sandbox.program import Program
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings

PATIENT = 60.0


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Yield a sandbox with one engine that has not started."""
    made = Sandbox(SandboxSettings(engines=("starlark",), spares=2))
    yield made
    await made.close()


def waiting(launcher: Launcher) -> list[int]:
    """Return the handles of the processes that wait for a program."""
    there = [each.result() for each in launcher.spare if each.done()]
    return [each.handle for each in there if each is not None]


async def test_the_first_program_starts_its_engine_and_waits_for_it(sandbox: Sandbox) -> None:
    ended = await sandbox.run(Program("result = 6 * 7", limits=AMPLE), Tools().call)
    assert (ended.value, ended.error) == (42, None)


async def test_programs_share_an_engine_that_is_starting(sandbox: Sandbox) -> None:
    sandbox.begin()
    runs = (sandbox.run(Program(f"result = {n}", limits=AMPLE), Tools().call) for n in range(3))
    assert [ended.value for ended in await asyncio.gather(*runs)] == [0, 1, 2]
    assert len(sandbox.starting) == 1


async def test_a_used_process_is_replaced(sandbox: Sandbox) -> None:
    await sandbox.start()
    launcher = sandbox.launchers["starlark"]
    await until(lambda: len(waiting(launcher)) == 2, "both spares", PATIENT)
    first = launcher.spare[0].result()
    await sandbox.run(Program("result = 1"), Tools().call)
    assert first is not None
    assert first.handle == -1
    await until(lambda: len(waiting(launcher)) == 2, "both spares again", PATIENT)
    assert launcher.spare[-1].result() is not first


async def test_closing_ends_an_engine_that_has_not_started_yet(sandbox: Sandbox) -> None:
    sandbox.begin()
    launcher = sandbox.launchers["starlark"]
    process = await until(lambda: launcher.process, "the zygote", PATIENT)
    await sandbox.close()
    assert process.poll() is not None
    assert launcher.control is None
