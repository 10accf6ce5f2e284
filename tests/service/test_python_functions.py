"""Python functions as a server: typed, validated, and in a process of their own."""

import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.services.call_runner import CallRunner
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream
from toolbus_executor.upstreams.process.python_functions import FunctionError, function_of, serving

MODULE = '''
"""Functions of a test."""

import asyncio
import os
from dataclasses import dataclass
from typing import Literal


@dataclass
class Sum:
    total: int
    unit: str = "pieces"


def add(a: int, b: int = 1, unit: Literal["pieces", "boxes"] = "pieces") -> Sum:
    """Add two numbers."""
    print("a print must not be taken for a message")
    return Sum(a + b, unit)


async def shout(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


def fail(reason: str) -> None:
    raise ValueError(reason)


def die() -> None:
    os._exit(3)


class Things:
    count = 0


def count() -> int:
    Things.count += 1
    return Things.count
'''


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[CallRunner]:
    """Run a server of the functions."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "tools.py").write_text(MODULE)
    client = CallRunner(validation="strict")
    functions = [f"shop.tools:{name}" for name in ("add", "shout", "fail", "die", "count")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    await client.open(StdioUpstream(serving(functions), environment, str(tmp_path), client.news))
    yield client
    await client.close()


async def test_functions_are_tools_with_the_schemas_of_their_types(client: CallRunner) -> None:
    tools = {each.name: each.definition for each in client.listing.tools}
    assert set(tools) == {"add", "shout", "fail", "die", "count"}
    schema = tools["add"]["inputSchema"]
    assert schema["required"] == ["a"]
    assert schema["properties"]["unit"]["enum"] == ["pieces", "boxes"]
    assert schema["additionalProperties"] is False
    assert tools["add"]["description"] == "Add two numbers."
    assert tools["add"]["outputSchema"]["properties"]["total"]["type"] == "integer"
    assert "outputSchema" not in tools["shout"]


async def test_plain_and_async_functions_are_called_and_may_print(client: CallRunner) -> None:
    items = (await client.call("add", {"a": 2, "unit": "boxes"})).last
    assert items["structuredContent"] == {"total": 3, "unit": "boxes"}
    assert (await client.call("shout", {"text": "hi"})).text == "HI"
    assert (await client.call("count")).text == "1"
    assert (await client.call("count")).text == "2"


async def test_invalid_arguments_and_failures_are_results_a_model_can_act_on(
    client: CallRunner,
) -> None:
    wrong = (await client.call("add", {"a": "x", "c": 1})).error
    assert "'a' must be an integer; it is a string; there is no argument 'c'" in wrong.reason
    # Without validation in the gateway the function validates itself.
    await client.runner.checks.learn([])
    validated = await client.call("add", {"a": "x", "c": 1})
    assert validated.last["isError"]
    assert "a: Input should be a valid integer" in validated.text
    assert "c: Extra inputs" in validated.text
    failed = await client.call("fail", {"reason": "No stock."})
    assert failed.last["isError"]
    assert failed.text == "ValueError: No stock."


async def test_a_function_that_ends_its_process_ends_nothing_else(client: CallRunner) -> None:
    assert isinstance((await client.call("die")).error, UpstreamDeadError)
    assert "exited with 3" in await client.upstream.wait_lost()


async def test_the_log_names_a_function_that_cannot_be_imported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = CallRunner(validation="strict")
    upstream = StdioUpstream(serving(["nowhere:no"]), dict(os.environ), str(tmp_path), client.news)
    with pytest.raises(UpstreamDeadError):
        await upstream.open()
    text = "Its process ended: it exited with 1; its output is in the log of executor."
    assert await upstream.wait_lost() == text
    lines = [str(vars(each).get("line")) for each in caplog.records]
    assert any("nowhere:no cannot be imported" in line for line in lines)
    await upstream.close()


def test_a_function_without_names_or_schemas_is_no_tool() -> None:
    def spread(*numbers: int) -> int:
        return sum(numbers)

    def odd(text: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821
        del text

    for each, words in ((spread, "has no name"), (odd, "without a JSON Schema")):
        with pytest.raises(FunctionError, match=words):
            function_of(each.__name__, each)


def test_the_command_uses_this_interpreter() -> None:
    assert serving(["a:b"])[0] == sys.executable
