"""MCP server on stdio that offers Python functions as tools. It runs in a separate process.

`python -m toolbus_executor.upstreams.process.python_functions package.module:function …`
"""

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

import msgspec
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

REVISION = "2026-07-28"  # revision of MCP; the stateless one is the simplest
LARGEST_LINE = 8 * 1024 * 1024
MAX_THREADS = 64
METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32601, -32602, -32603
_encode = msgspec.json.Encoder().encode
_INFO = {"name": "toolbus-functions", "version": "1"}
_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def serving(functions: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs a server with these functions."""
    return (sys.executable, "-m", "toolbus_executor.upstreams.process.python_functions", *functions)


class FunctionError(Exception):
    """A function cannot be a tool. The message is the reason."""


class RefusedError(Exception):
    """A request is rejected with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Function:
    """A function as a tool: a model for its arguments, and the type of its result."""

    name: str
    run: Callable[..., Any]
    arguments: type[BaseModel]
    result: TypeAdapter[Any]
    is_object: bool  # whether every result is an object

    @property
    def definition(self) -> dict[str, Any]:
        """The definition of the tool."""
        schema = self.arguments.model_json_schema()
        schema.pop("title", None)
        output = self.result.json_schema(mode="serialization") if self.is_object else None
        return {
            "name": self.name,
            "description": inspect.getdoc(self.run) or self.name,
            "inputSchema": schema,
            **({"outputSchema": output} if output else {}),
        }


def function_at(path: str) -> Function:
    """Return the tool for the function at `package.module:function`. Raises `FunctionError`."""
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise FunctionError(f"{path} cannot be imported: {error}.") from error
    if not callable(found):
        raise FunctionError(f"{path} is not a function.")
    return function_of(name, found)


def function_of(name: str, run: Callable[..., Any]) -> Function:
    """Return the tool for a function. Raises `FunctionError`."""
    parameters = inspect.signature(run).parameters.values()
    for each in parameters:
        if each.kind not in _KINDS:
            raise FunctionError(f"{name}: {each} has no name; name every argument.")
    try:
        hints = get_type_hints(run, include_extras=True)
        fields: dict[str, Any] = {
            each.name: (
                hints.get(each.name, Any),
                ... if each.default is each.empty else each.default,
            )
            for each in parameters
        }
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        model.model_json_schema()
        result: TypeAdapter[Any] = TypeAdapter(hints.get("return", Any))
        schema = result.json_schema(mode="serialization")
    except Exception as error:
        raise FunctionError(f"{name} has types without a JSON Schema: {error}.") from error
    return Function(name, run, model, result, is_object=schema.get("type") == "object")


class Server:
    """The server. It processes each request in a separate task."""

    def __init__(self, functions: Sequence[Function], write: Callable[[bytes], None]) -> None:
        self._functions = {each.name: each for each in functions}
        self._write = write
        self._running: dict[Any, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(MAX_THREADS)

    def handle(self, line: bytes) -> None:
        """Process one message."""
        try:
            message = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return
        if not isinstance(message, dict):
            return
        method, number = message.get("method"), message.get("id")
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        if method == "notifications/cancelled":
            self._cancel(params.get("requestId"))
        elif number is not None and isinstance(method, str):
            task = asyncio.ensure_future(self._answer(number, method, params))
            self._running[number] = task
            task.add_done_callback(lambda _: self._running.pop(number, None))

    def _cancel(self, number: Any) -> None:
        task = self._running.get(number)
        if task is not None:
            task.cancel()

    async def _answer(self, number: Any, method: str, params: dict[str, Any]) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
        try:
            message["result"] = await self._result(method, params)
            body = _encode(message)
        except Exception as error:  # noqa: BLE001 - every request needs a response
            code = error.code if isinstance(error, RefusedError) else INTERNAL_ERROR
            body = _encode({**message, "error": {"code": code, "message": str(error)[:500]}})
        self._write(body + b"\n")

    async def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "server/discover":
            description = {"supportedVersions": [REVISION], "serverInfo": _INFO}
            return {**description, "capabilities": {"tools": {}}, "resultType": "complete"}
        if method == "tools/list":
            tools = [each.definition for each in self._functions.values()]
            return {"tools": tools, "resultType": "complete"}
        if method == "tools/call":
            return {**await self._call_function(params), "resultType": "complete"}
        raise RefusedError(METHOD_NOT_FOUND, f"There is no method {method[:64]}; see MCP.")

    async def _call_function(self, params: dict[str, Any]) -> dict[str, Any]:
        function = self._functions.get(str(params.get("name")))
        if function is None:
            name = str(params.get("name"))[:64]
            raise RefusedError(INVALID_PARAMS, f"There is no tool {name!r}; list the tools again.")
        try:
            arguments = function.arguments.model_validate(params.get("arguments") or {})
        except ValidationError as error:
            return _failed(_validation_message(error))
        values = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        try:
            result = await self._run(function, values)
            return _result_of(function, function.result.dump_json(result))
        except Exception as error:  # noqa: BLE001 - an error of the function is its result
            return _failed(f"{type(error).__name__}: {error}")

    async def _run(self, function: Function, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(function.run):
            return await function.run(**arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function.run(**arguments))


def _result_of(function: Function, raw: bytes) -> dict[str, Any]:
    value = msgspec.json.decode(raw)
    text = value if isinstance(value, str) else raw.decode()
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    return result | ({"structuredContent": value} if function.is_object else {})


def _failed(message: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": message[:4000]}], "isError": True}


def _validation_message(error: ValidationError) -> str:
    """Return an error message about invalid arguments. It contains no values."""
    problems = [
        f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}"
        for each in error.errors(include_url=False, include_input=False)
    ]
    return f"Invalid arguments: {'; '.join(problems)}."


async def _serve(functions: Sequence[Function], output: int) -> None:
    server = Server(functions, lambda body: _write_all(output, body))
    reader = asyncio.StreamReader(limit=LARGEST_LINE)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin.buffer)
    while line := await reader.readline():
        server.handle(line)


def _write_all(output: int, body: bytes) -> None:
    left = memoryview(body)
    while left:
        left = left[os.write(output, left) :]


def _own_stdout() -> int:
    """Return a descriptor for messages. The output of functions goes to stderr from now on."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own


def main(paths: Sequence[str]) -> int:
    """Run the server until standard input ends, and return the exit code."""
    output = _own_stdout()
    try:
        functions = [function_at(path) for path in paths]
    except FunctionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    asyncio.run(_serve(functions, output))
    sys.stdout.flush()
    os._exit(0)  # do not wait for functions that run in threads


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
