"""Administration operations: authorize the caller, read the body, have policy perform them."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer
from starlette.responses import Response

from toolbus_common import strict_json
from toolbus_common.admin_api.operations import OPERATIONS
from toolbus_common.admin_api.roles import Right
from toolbus_common.contracts import AdminReply, AdminRequest
from toolbus_common.errors import InvalidError
from toolbus_ingress.admin_api.credentials import authenticate
from toolbus_ingress.http.jsonrpc import Response as Answer
from toolbus_ingress.http.request_guard import check_content_length, read_request_body
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.rest.application import answer, endpoint_of
from toolbus_ingress.rest.openapi import JSON, YAML
from toolbus_ingress.rest.parameters import reject_unknown_parameters
from toolbus_ingress.rest.problems import UnsupportedBodyError

BASE = "/api/v1"
SECONDS = 20.0
NO_CONTENT = 204
ADMINISTRATOR = HTTPBearer(
    scheme_name="administrator",
    description="An admin key, or the access token of a person whose access rule has a role.",
    auto_error=False,
)


def administration(section: str) -> APIRouter:
    """Return the router of one section of `/api/v1`."""
    checks = [Depends(reject_unknown_parameters)]
    return APIRouter(prefix=f"{BASE}/{section}", tags=[section], dependencies=checks)


@dataclass(slots=True)
class PolicyCall:
    """One operation of an authorized administrator."""

    performs: "Performs"
    endpoint: Endpoint
    request: Request
    key_digest: str

    async def run(self, **parameters: Any) -> Response:
        """Read the body, have policy perform the operation, and return policy's answer.

        `parameters` are fields of `AdminRequest`, such as `name`, `match` and `limit`. The
        operation is performed after the request is complete, even if its body is ignored.

        Raises:
            InvalidError: the body is not strict JSON, or has another content type.
            ToolbusError: policy rejected the operation, or cannot be reached.

        """
        form, body = await self._body()
        if self.performs.body is not None:
            parameters |= {"form": form, "body": body}
        query = AdminRequest(
            key_digest=self.key_digest,
            operation=self.performs.operation,
            kind=self.performs.kind,
            **parameters,
        )
        reply = await self.endpoint.service.requests.request(query, AdminReply, SECONDS)
        return answer(self._response(reply))

    def _response(self, reply: AdminReply) -> Answer:
        headers: tuple[tuple[bytes, bytes], ...] = ((b"cache-control", b"no-store"),)
        if reply.revision:
            headers += ((b"etag", b'"%d"' % reply.revision),)
        status: int = self.request.scope["route"].status_code or 200
        if status == NO_CONTENT:
            return Answer(status, b"", headers)
        media_type = YAML if reply.form == "yaml" else JSON
        headers += ((b"content-type", media_type.encode()),)
        return Answer(201 if reply.created else status, reply.body, headers)

    async def _body(self) -> tuple[str, bytes]:
        """Return the format and the bytes of the body.

        JSON is parsed strictly and encoded again.
        """
        headers, largest = (
            self.endpoint.guard.headers(self.request.scope), self.endpoint.largest_body,
        )  # fmt: skip
        check_content_length(headers, largest)
        form = self._form(headers.get(b"content-type", b""))
        body = await read_request_body(self.request.receive, largest)
        if form != "json":
            return form, body
        try:
            return form, strict_json.dump(strict_json.parse(body))
        except strict_json.StrictJSONError as error:
            raise InvalidError(f"The body is not strict JSON: {error}. Correct it.") from error

    def _form(self, content_type: bytes) -> str:
        """Return the format of the body; empty if the operation ignores the body."""
        media_type = content_type.partition(b";")[0].strip().lower().decode("latin-1")
        if self.performs.body is None:
            return ""
        if media_type == JSON:
            return "json"
        if media_type == YAML and self.performs.yaml:
            return "yaml"
        wanted = f"{JSON} or {YAML}" if self.performs.yaml else JSON
        raise UnsupportedBodyError(f"Unsupported content type. Send Content-Type: {wanted}.")


@dataclass(frozen=True)
class Performs:
    """Dependency that authorizes the request for an operation before its body is read.

    `body` is the model of the body, for the OpenAPI document; policy validates the body with it.
    """

    operation: str
    kind: str = ""
    body: Any = field(default=None, hash=False)
    yaml: bool = False

    @property
    def right(self) -> Right | None:
        """The right that the operation requires."""
        return OPERATIONS[self.operation]

    async def __call__(
        self, request: Request, _credential: Annotated[object, Security(ADMINISTRATOR)]
    ) -> PolicyCall:
        """Return the operation, if the administrator's role permits it.

        Raises:
            UnauthorizedError: there is no valid credential.
            ForbiddenError: the role does not include the right.
            InsufficientScopeError: the scope of the access token does not include the right.

        """
        endpoint, scope = endpoint_of(request), request.scope
        key_digest, administrator = await authenticate(
            endpoint, endpoint.guard.headers(scope), scope
        )
        administrator.check(self.right)
        return PolicyCall(self, endpoint, request, key_digest)


def performs(operation: str, kind: str = "", body: Any = None, *, yaml: bool = False) -> Any:
    """Return the dependency of a path function whose operation policy performs."""
    return Depends(Performs(operation, kind, body, yaml))
