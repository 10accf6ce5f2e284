"""Tools as functions over plain REST: `/v1/mcp/tools`."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, Field
from starlette.responses import Response

from toolbus_common import strict_json
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.contracts import ProtocolFamily
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.model_api.tool_forms import MAX_CONCURRENT, Form, definition_of
from toolbus_ingress.auth.api_key_header import API_KEY, with_credential
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.rest.application import Application, ServedEndpoint, json_answer
from toolbus_ingress.rest.openapi import problems, request_body, schemas_of
from toolbus_ingress.rest.parameters import reject_unknown_parameters
from toolbus_ingress.tools_api.tool_calls import EXECUTE, IS_ERROR, TOOLS

CALLER = HTTPBearer(
    scheme_name="caller",
    description="An API key or an access token. Anonymous callers, if allowed, send neither.",
    auto_error=False,
)
CALLER_KEY = APIKeyHeader(
    name=API_KEY.decode(),
    scheme_name="api_key",
    description="An API key, as Anthropic's SDKs send it.",
    auto_error=False,
)
router = APIRouter(tags=["tools"], dependencies=[Depends(reject_unknown_parameters)])


class Function(BaseModel):
    """The function that a model may call; `parameters` is a JSON schema."""

    name: str
    parameters: dict[str, Any]
    description: str = ""


class FunctionTool(BaseModel):
    """A tool in the form of a chat completion's `tools`."""

    type: Literal["function"]
    function: Function


class ResponsesTool(Function):
    """A tool in the form of `tools` of the responses API; not `strict`: parameters are optional."""

    type: Literal["function"]
    strict: Literal[False]


class MessagesTool(BaseModel):
    """A tool in the form of `tools` of the messages API; `input_schema` is a JSON schema."""

    name: str
    input_schema: dict[str, Any]
    description: str = ""


class Functions(BaseModel):
    """The tools of a caller; `auto_execute` names the tools that no person has to confirm."""

    object: Literal["list"]
    data: list[FunctionTool] | list[ResponsesTool] | list[MessagesTool]
    auto_execute: list[str]


class FunctionCall(BaseModel):
    """The called function; `arguments` is an object, or the JSON text of an object."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ChatToolCall(BaseModel):
    """A tool call in the form of chat completions."""

    id: str
    function: FunctionCall


class ResponsesToolCall(FunctionCall):
    """A tool call in the form of the responses API."""

    call_id: str


class ToolUse(BaseModel):
    """A tool call in the form of the messages API."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class OtherBlock(BaseModel):
    """A block of a model's message that is not a tool call; it is ignored."""

    type: str


class AssistantMessage(BaseModel):
    """A model's message with several tool calls."""

    tool_calls: Annotated[
        list[ChatToolCall | ResponsesToolCall], Field(min_length=1, max_length=MAX_CONCURRENT)
    ]


class AssistantBlocks(BaseModel):
    """A model's message in the form of the messages API, with at most 32 blocks `tool_use`."""

    role: Literal["assistant"]
    content: list[ToolUse | OtherBlock]


class ToolMessage(BaseModel):
    """The message with a tool's result, in the form of chat completions."""

    role: Literal["tool"]
    tool_call_id: str
    content: str


class FunctionCallOutput(BaseModel):
    """A tool's result, in the form of the responses API."""

    type: Literal["function_call_output"]
    call_id: str
    output: str


class ToolResult(BaseModel):
    """A tool's result, in the form of the messages API."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str
    is_error: Literal[True] | None = None


class UserMessage(BaseModel):
    """The results of several tool calls, in the order of the calls, for the messages API."""

    role: Literal["user"]
    content: list[ToolResult]


class ToolMessages(BaseModel):
    """The results of several tool calls, in the order of the calls."""

    messages: list[ToolMessage | FunctionCallOutput]


async def authenticated(
    request: Request,
    endpoint: ServedEndpoint,
    _credential: Annotated[object, Security(CALLER)],
    _key: Annotated[object, Security(CALLER_KEY)],
) -> Caller:
    """Return the caller of tools. Raises the errors of `Endpoint.caller`."""
    scope = request.scope
    headers = with_credential(endpoint.guard.headers(scope))
    await endpoint.verify_token(headers)
    return endpoint.caller(headers, scope, "", scope["query_string"])


@router.get(TOOLS, response_model=Functions, responses=problems(400, 401, 403, 431, 503))
async def list_tools(
    endpoint: ServedEndpoint,
    caller: Annotated[Caller, Security(authenticated)],
    _mode: Annotated[
        str,
        Query(alias="mode", description="`code` and `search` list the tools of code mode."),
    ] = Mode.TOOLS,
    form: Annotated[
        Form,
        Query(alias="format", description="The API for whose `tools` the list is meant."),
    ] = Form.CHAT,
) -> Response:
    """List the tools that a key may use, as functions for a model."""
    listed = endpoint.catalogue.list_body(
        "tools/list", caller.grants, "", ProtocolFamily.LEGACY, caller.mode
    )
    tools = msgspec.json.decode(listed)["tools"]
    functions = {
        "object": "list",
        "data": [definition_of(tool, form) for tool in tools],
        "auto_execute": [t["name"] for t in tools if _automatic(endpoint, caller, t["name"])],
    }
    return json_answer(strict_json.dump(functions))


@router.post(
    EXECUTE,
    response_model=ToolMessage | FunctionCallOutput | ToolResult | ToolMessages | UserMessage,
    responses=problems(
        400, 401, 402, 403, 404, 406, 408, 409, 410, 413, 415, 422, 429, 431, 502, 503, 504
    ),
    openapi_extra={"security": [{"caller": []}, {"api_key": []}]},
)
async def execute_tool_calls() -> Response:
    """Run a tool call that a model suggested, or all tool calls of an assistant message.

    The response header `x-toolbus-is-error` is set if a tool failed. With the request header
    `Idempotency-Key`, the calls run only once.
    """
    raise NotImplementedError(f"'RestApis' answers POST {EXECUTE}, without FastAPI.")


def describe_tool_calls(_application: Application, document: dict[str, Any]) -> None:
    """Add the body and the header of the execution of tool calls to the document."""
    calls = ChatToolCall | ResponsesToolCall | ToolUse | AssistantMessage | AssistantBlocks
    schemas, definitions = schemas_of({"calls": calls})
    document["components"]["schemas"] |= definitions
    operation = document["paths"][EXECUTE]["post"]
    operation["requestBody"] = request_body(schemas["calls"])
    operation["responses"]["200"]["headers"] = {
        IS_ERROR.decode(): {"description": "`true` if a tool failed.", "schema": {"const": "true"}}
    }


def _automatic(endpoint: Endpoint, caller: Caller, name: str) -> bool:
    server, inner = endpoint.catalogue.names.meant(name, "tools", "")
    key = endpoint.directory.now.principal(caller.name).own
    return granted(key.auto_execute, full_name(server, inner))
