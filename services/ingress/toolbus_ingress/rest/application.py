"""The FastAPI application of the REST APIs, with its errors and its OpenAPI document."""

import json
from collections.abc import Callable, MutableMapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any, cast

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response as HTTPResponse

from toolbus_common import VERSION
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RejectedRequestError
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.rest import openapi, problems
from toolbus_ingress.rest.models import Problem

Extension = Callable[["Application", dict[str, Any]], None]
_OUTCOME = "toolbus.outcome"
_ABOUT = (
    "Administration (`/api/v1`) requires an admin key, or the access token of a person whose "
    "access rule has a role. Tools and approvals require an API key or an access token."
)
_CUSTOM = "Value error, "  # pydantic's prefix for the reasons of our own validators


@dataclass(slots=True)
class _Outcome:
    """The reason why a response rejects a credential, which ingress counts; else empty."""

    rejected: str = ""


class Application(FastAPI):
    """All REST APIs, without FastAPI's documentation pages and without telemetry of its own.

    `extensions` are functions that add parts to the OpenAPI document.
    """

    def __init__(
        self, endpoint: Endpoint, routers: Sequence[APIRouter], extensions: Sequence[Extension] = ()
    ) -> None:
        super().__init__(
            title="Toolbus",
            version=VERSION,
            description=_ABOUT,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            separate_input_output_schemas=False,
            generate_unique_id_function=lambda route: route.name,
            telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        )
        self.endpoint = endpoint
        self._extensions = extensions
        self._document = b""
        self._generating = Lock()
        for error in (ToolbusError, RejectedRequestError, RequestValidationError, HTTPException):
            self.add_exception_handler(error, self._problem)
        for router in routers:
            self.include_router(router)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document. Idempotent."""
        document = deepcopy(super().openapi())  # FastAPI returns its cached dictionary
        openapi.tidy(document)
        _, definitions = openapi.schemas_of({Problem.__name__: Problem})
        document["components"]["schemas"] |= definitions
        for extend in self._extensions:
            extend(self, document)
        return cast("dict[str, Any]", openapi.closed(document))

    @property
    def document(self) -> bytes:
        """The encoded OpenAPI document; it is generated once, on first use in any thread."""
        with self._generating:
            if not self._document:
                self._document = json.dumps(self.openapi(), ensure_ascii=False).encode()
            return self._document

    async def run(self, scope: MutableMapping[str, Any], receive: Receive) -> Response:
        """Return the response to a request instead of sending it."""
        if scope["path"].endswith("\n"):  # `$` in Starlette's patterns ignores it
            return problems.unknown_path()
        outcome = _Outcome()
        response = await collected(self, {**scope, _OUTCOME: outcome}, receive)
        return msgspec.structs.replace(response, rejected=outcome.rejected)

    async def _problem(self, request: Request, error: Exception) -> HTTPResponse:
        response = self._problem_of(request, error)
        request.scope[_OUTCOME].rejected = response.rejected
        return answer(response)

    def _problem_of(self, request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            allowed = self._methods(request.scope["path"])
            return problems.method_not_allowed(allowed) if allowed else problems.unknown_path()
        if isinstance(error, RejectedRequestError):
            return problems.rejection(error)
        if isinstance(error, RequestValidationError):
            error = _invalid(error)
        resource = self.endpoint.protected_resource
        return problems.failure(cast("ToolbusError", error), request.scope, resource)

    def _methods(self, path: str) -> list[str]:
        """Return the methods of all operations on a path."""
        return [
            method
            for route in iter_route_contexts(self.routes)
            if route.path_regex.fullmatch(path)
            for method in route.methods or ()
        ]


async def collected(
    application: FastAPI, scope: MutableMapping[str, Any], receive: Receive
) -> Response:
    """Return the whole response of an application instead of sending it."""
    head: dict[str, Any] = {}
    body = bytearray()

    async def collect(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            head.update(message)
        else:
            body.extend(message.get("body", b""))

    await application(scope, receive, collect)
    headers = tuple((name, value) for name, value in head["headers"] if name != b"content-length")
    return Response(head["status"], bytes(body), headers)


def endpoint_of(request: Request) -> Endpoint:
    """Return the endpoint that the application serves."""
    return cast("Application", request.app).endpoint


async def _endpoint(request: Request) -> Endpoint:
    return endpoint_of(request)


ServedEndpoint = Annotated[Endpoint, Depends(_endpoint)]


def answer(response: Response) -> HTTPResponse:
    """Return a response in Starlette's form."""
    converted = HTTPResponse(response.body, response.status)
    converted.raw_headers.extend(response.headers)
    return converted


def json_answer(body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> HTTPResponse:
    """Return a JSON response that no cache may store."""
    fields = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"), *headers)
    return answer(Response(status, body, fields))


def _invalid(error: RequestValidationError) -> InvalidError:
    """Return the parameters that FastAPI rejected, as an error with their locations."""
    found = error.errors()
    located = [
        {"location": ".".join(map(str, each["loc"])), "line": 0, "reason": _reason(each)}
        for each in found
    ]
    return InvalidError(_reason(found[0]), errors=located)


def _reason(error: Any) -> str:
    message: str = error["msg"]
    own = message.removeprefix(_CUSTOM)
    return own if own != message else f"{error['loc'][-1]}: {message}."
