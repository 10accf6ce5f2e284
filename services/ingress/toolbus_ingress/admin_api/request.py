"""Parse one administration request strictly: path, query, precondition, body. Pure."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolbus_common import strict_json
from toolbus_common.admin_api.operations import BASE, OPERATIONS, Operation
from toolbus_common.errors import InvalidError
from toolbus_ingress.http.request_guard import Headers

JSON, YAML = "application/json", "application/yaml"
MATCH = r'^(?:\*|"?[0-9]{1,18}"?)$'
DIGITS = re.compile(r"[0-9]{1,4}")


class Query(BaseModel):
    """All query parameters; each operation accepts some of them."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="Maximum number of entries.")] = 100
    after: Annotated[
        str,
        Field(
            max_length=256, description="Only names after this one: `next` of the previous page."
        ),
    ] = ""
    customer: Annotated[
        str,
        Field(
            max_length=64, pattern=r"^[A-Za-z0-9_-]*$", description="Only entries of this customer."
        ),
    ] = ""
    format: Annotated[Literal["json", "yaml"], Field(description="Format of the response.")] = (
        "json"
    )
    dry_run: Annotated[
        Literal["true", "false"], Field(description="Only return what would change.")
    ] = "false"


@dataclass(frozen=True, slots=True)
class Matched:
    """An operation, and the name in its path."""

    operation: Operation
    name: str = ""


def match_operation(path: str, method: str) -> Matched | tuple[str, ...]:
    """Return the operation of a path and method; else the methods of the path, if any."""
    methods: list[str] = []
    for operation in OPERATIONS.values() if path.startswith(f"{BASE}/") else ():
        found = operation.route.fullmatch(path)
        if found is not None and operation.method == method:
            return Matched(operation, found[1] if found.groups() else "")
        if found is not None:
            methods.append(operation.method)
    return tuple(sorted(set(methods)))


def check_name(found: Matched) -> None:
    """Raise `InvalidError` if the name in the path is not valid."""
    if "{" in found.operation.path and not re.fullmatch(
        found.operation.named, found.name, re.DOTALL
    ):
        raise InvalidError(
            "The name in the path is invalid. See docs/reference/configuration.md for valid names."
        )


def parse_query(text: bytes, operation: Operation) -> Query:
    """Return the parameters of a query. Raises `InvalidError`."""
    try:
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=16)
    except ValueError as error:
        raise InvalidError("Too many query parameters. Send each once.") from error
    given = dict(pairs)
    unknown = sorted(set(given) - set(operation.parameters))
    if unknown or len(given) < len(pairs):
        known = ", ".join(operation.parameters) or "none"
        raise InvalidError(
            f"Unknown or repeated query parameter. Send each once; known here: {known}."
        )
    if "limit" in given and not DIGITS.fullmatch(given["limit"]):
        raise InvalidError("limit must be a number from 1 to 1000.")
    try:
        return Query.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidError(f"{first['loc'][0]}: {first['msg']}.") from error


def if_match(headers: Headers) -> str:
    """Return the revision of If-Match: a number, `*` or empty. Raises `InvalidError`."""
    value = headers.get(b"if-match", b"").decode("latin-1")
    if b"if-match" in headers and not re.fullmatch(MATCH, value):
        raise InvalidError('If-Match must be * or a revision in quotes, such as "17".')
    return value.strip('"')


def body_format(headers: Headers, operation: Operation) -> str:
    """Return the format of the body. Raises `UnsupportedBodyError`."""
    content_type = (
        headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    )
    if content_type == JSON:
        return "json"
    if content_type == YAML and operation.takes_yaml:
        return "yaml"
    wanted = f"{JSON} or {YAML}" if operation.takes_yaml else JSON
    raise UnsupportedBodyError(f"Unsupported content type. Send Content-Type: {wanted}.")


def canonical_body(body: bytes, form: str, operation: Operation) -> bytes:
    """Return the body to forward: strict JSON is re-encoded. Raises `InvalidError`."""
    if operation.wants is None or form == "yaml":
        return body
    try:
        return strict_json.dump(strict_json.parse(body))
    except strict_json.StrictJSONError as error:
        raise InvalidError(f"The body is not strict JSON: {error}.") from error


class UnsupportedBodyError(InvalidError):
    """The body has a content type that the operation does not accept."""


def parameter_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of one parameter."""
    schema: dict[str, Any] = Query.model_json_schema()["properties"][name]
    return schema
