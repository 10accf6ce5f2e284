"""Explanations of calls for their callers: `/v1/mcp/tools/explain`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Security
from pydantic import ValidationError
from starlette.responses import Response

from toolbus_common import strict_json
from toolbus_common.admin_api.models import ExplainedCall
from toolbus_common.contracts import Explanation, OwnExplainQuery
from toolbus_common.errors import InvalidError
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.http.request_guard import check_content_length, read_request_body
from toolbus_ingress.rest.application import Application, ServedEndpoint, json_answer
from toolbus_ingress.rest.openapi import problems, request_body, schemas_of
from toolbus_ingress.rest.parameters import reject_unknown_parameters
from toolbus_ingress.tools_api.routes import authenticated

SECONDS = 20.0
EXPLAIN = "/v1/mcp/tools/explain"
router = APIRouter(tags=["tools"], dependencies=[Depends(reject_unknown_parameters)])


@router.post(
    EXPLAIN, response_model=Explanation, responses=problems(400, 401, 403, 408, 413, 431, 503)
)
async def explain_own_call(
    request: Request, endpoint: ServedEndpoint, caller: Annotated[Caller, Security(authenticated)]
) -> Response:
    """Explain how a call with the caller's own key would be decided; nothing is called or recorded.

    The explanation contains only what the caller may see; other tools are reported as unknown.
    """
    check_content_length(endpoint.guard.headers(request.scope), endpoint.largest_body)
    body = await read_request_body(request.receive, endpoint.largest_body)
    try:
        call = ExplainedCall.model_validate(strict_json.parse(body))
    except (strict_json.StrictJSONError, ValidationError) as error:
        raise InvalidError(
            'The body must be strict JSON such as {"name": "docs__search", "arguments": {}}.'
        ) from error
    arguments = strict_json.dump(call.arguments).decode()
    query = OwnExplainQuery(key_digest=caller.key_digest, name=call.name, arguments=arguments)
    found = await endpoint.service.requests.request(query, Explanation, SECONDS)
    return json_answer(found.encode())


def describe_explanations(_application: Application, document: dict[str, Any]) -> None:
    """Add the body of the operation to the document."""
    schemas, definitions = schemas_of({"call": ExplainedCall})
    document["components"]["schemas"] |= definitions
    document["paths"][EXPLAIN]["post"]["requestBody"] = request_body(schemas["call"])
