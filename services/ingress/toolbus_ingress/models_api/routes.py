"""Description of the models API in the OpenAPI document; `handler.ModelsApi` serves it."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from toolbus_ingress.models_api.agent_request import RUN_ID
from toolbus_ingress.models_api.handler import METHODS, MODELS
from toolbus_ingress.models_api.model_call import CALL_ID, FALLBACKS, MODEL
from toolbus_ingress.models_api.request_reader import LONGEST_NAME, MAX_CHOICES
from toolbus_ingress.rest.application import Application
from toolbus_ingress.rest.openapi import JSON, problems, request_body, schemas_of
from toolbus_ingress.sessions.suggestions import SUGGESTION

SECURITY: list[dict[str, list[str]]] = [{"caller": []}, {"api_key": []}]
_SECURED = {"security": SECURITY}
_FAILURES = problems(400, 401, 402, 403, 404, 406, 408, 409, 413, 415, 429, 431, 502, 503, 504)
_LIST_FAILURES = problems(400, 401, 403, 404, 431, 503)
_HEADERS = {
    MODEL.decode(): "The provider and the model that served the request.",
    CALL_ID.decode(): "The id of the call in the audit log.",
    SUGGESTION.decode(): "The link for the tool calls that the response suggests.",
    FALLBACKS.decode(): "The number of targets that failed before; missing for 0.",
    RUN_ID.decode(): "The run, in agent mode; the header `x-toolbus-run` continues it.",
}
router = APIRouter(tags=["models"])


class OpenModel(BaseModel):
    """A body whose other fields are passed on to the provider, or come from it."""

    model_config = ConfigDict(extra="allow")


class ModelRequestBody(OpenModel):
    """A request to a model; `model` is an alias or `provider/model`."""

    model: str = Field(min_length=1, max_length=LONGEST_NAME)


class StreamedRequestBody(ModelRequestBody):
    """A request whose response can be streamed."""

    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None


class ChatRequest(StreamedRequestBody):
    """A request of OpenAI's chat completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=0)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)


class ResponsesRequest(StreamedRequestBody):
    """A request of OpenAI's responses API."""

    input: str | list[dict[str, Any]]
    max_output_tokens: int | None = Field(default=None, ge=0)


class EmbeddingsRequest(ModelRequestBody):
    """A request of OpenAI's embeddings."""

    input: str | list[Any]


class MessagesRequest(StreamedRequestBody):
    """A request of Anthropic's messages API."""

    messages: list[dict[str, Any]]
    max_tokens: int = Field(ge=0)


class TokenCountRequest(ModelRequestBody):
    """A request of Anthropic's token count."""

    messages: list[dict[str, Any]]


class OpenAIError(BaseModel):
    """Details of an error in OpenAI's form."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIFailure(BaseModel):
    """An error in OpenAI's form."""

    error: OpenAIError


class AnthropicError(BaseModel):
    """Details of an error in Anthropic's form."""

    type: str
    message: str


class AnthropicFailure(BaseModel):
    """An error in Anthropic's form."""

    type: Literal["error"]
    error: AnthropicError


class ModelEntry(OpenModel):
    """A model that the caller may use."""

    id: str


class ModelList(OpenModel):
    """The models that the caller may use, in OpenAI's or in Anthropic's form."""

    data: list[ModelEntry]


_BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/embeddings": EmbeddingsRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": TokenCountRequest,
}


@router.get(MODELS, response_model=ModelList, responses=_LIST_FAILURES, openapi_extra=_SECURED)
async def list_usable_models() -> None:
    """List the models that a key may use.

    The list has Anthropic's form if the request has the header `anthropic-version`.
    """
    raise _not_served()


@router.get(
    MODELS + "/{name}", response_model=ModelEntry, responses=_LIST_FAILURES, openapi_extra=_SECURED
)
async def show_usable_model(name: str) -> None:  # noqa: ARG001
    """Show a model that a key may use."""
    raise _not_served()


@router.post(
    "/v1/chat/completions",
    response_model=OpenModel,
    responses=_FAILURES,
    openapi_extra=_SECURED,
)
async def create_chat_completion() -> None:
    """Request a chat completion in OpenAI's form."""
    raise _not_served()


@router.post("/v1/responses", response_model=OpenModel, responses=_FAILURES, openapi_extra=_SECURED)
async def create_response() -> None:
    """Request a response in the form of OpenAI's responses API."""
    raise _not_served()


@router.post(
    "/v1/embeddings", response_model=OpenModel, responses=_FAILURES, openapi_extra=_SECURED
)
async def create_embeddings() -> None:
    """Request embeddings in OpenAI's form."""
    raise _not_served()


@router.post("/v1/messages", response_model=OpenModel, responses=_FAILURES, openapi_extra=_SECURED)
async def create_message() -> None:
    """Request a message in Anthropic's form."""
    raise _not_served()


@router.post(
    "/v1/messages/count_tokens",
    response_model=OpenModel,
    responses=_FAILURES,
    openapi_extra=_SECURED,
)
async def count_tokens() -> None:
    """Count the tokens of a message in Anthropic's form."""
    raise _not_served()


def describe_models(_application: Application, document: dict[str, Any]) -> None:
    """Add the bodies, the headers and the forms of errors to the document."""
    failures = OpenAIFailure | AnthropicFailure
    schemas, definitions = schemas_of({**_BODIES, "failure": failures})
    document["components"]["schemas"] |= definitions
    headers = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
    }
    for path in (*METHODS, MODELS, MODELS + "/{name}"):
        for operation in document["paths"][path].values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:  # noqa: PLR2004
                    response["content"] = {JSON: {"schema": schemas["failure"]}}
            if path in _BODIES:
                operation["requestBody"] = request_body(schemas[path])
                operation["responses"]["200"]["headers"] = headers
            if "stream" in getattr(_BODIES.get(path), "model_fields", {}):
                content = operation["responses"]["200"]["content"]
                content["text/event-stream"] = {"schema": {"type": "string"}}


def _not_served() -> NotImplementedError:
    return NotImplementedError("'ModelsApi' answers these requests, without FastAPI.")
