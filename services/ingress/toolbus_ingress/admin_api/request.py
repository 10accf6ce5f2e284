"""One request of the administration, read strictly: path, query, condition, body. Pure."""

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
    """Every parameter there is; each operation takes some of them."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="How many, at most.")] = 100
    after: Annotated[
        str, Field(max_length=256, description="Only names after this one: the last page's next.")
    ] = ""
    customer: Annotated[
        str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]*$", description="Only of this customer.")
    ] = ""
    format: Annotated[Literal["json", "yaml"], Field(description="How to write it.")] = "json"
    dry_run: Annotated[
        Literal["true", "false"], Field(description="Only tell what would change.")
    ] = "false"


@dataclass(frozen=True, slots=True)
class Matched:
    """An operation, and the name in its path."""

    operation: Operation
    name: str = ""


def matched(path: str, method: str) -> Matched | tuple[str, ...]:
    """The operation of a path and method; else the methods the path has, if any."""
    methods: list[str] = []
    for operation in OPERATIONS.values() if path.startswith(f"{BASE}/") else ():
        found = operation.route.fullmatch(path)
        if found is not None and operation.method == method:
            return Matched(operation, found[1] if found.groups() else "")
        if found is not None:
            methods.append(operation.method)
    return tuple(sorted(set(methods)))


def check_name(found: Matched) -> None:
    """Raise `InvalidError` when the name in the path is none."""
    if "{" in found.operation.path and not re.fullmatch(
        found.operation.named, found.name, re.DOTALL
    ):
        raise InvalidError(
            "The name in the path is none: see docs/reference/configuration.md for names."
        )


def query_of(text: bytes, operation: Operation) -> Query:
    """The parameters of a query. Raises `InvalidError`."""
    try:
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=16)
    except ValueError as error:
        raise InvalidError("There are too many parameters; give each once.") from error
    given = dict(pairs)
    unknown = sorted(set(given) - set(operation.parameters))
    if unknown or len(given) < len(pairs):
        known = ", ".join(operation.parameters) or "none"
        raise InvalidError(f"Give each parameter once; those known here: {known}.")
    if "limit" in given and not DIGITS.fullmatch(given["limit"]):
        raise InvalidError("limit: must be a number from 1 to 1000.")
    try:
        return Query.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidError(f"{first['loc'][0]}: {first['msg']}.") from error


def match_of(headers: Headers) -> str:
    """The revision a request depends on, as a number, `*` or nothing. Raises `InvalidError`."""
    told = headers.get(b"if-match", b"").decode("latin-1")
    if b"if-match" in headers and not re.fullmatch(MATCH, told):
        raise InvalidError('If-Match: must be * or a revision in quotes, such as "17".')
    return told.strip('"')


def form_of(headers: Headers, operation: Operation) -> str:
    """How the body is written. Raises `InvalidError` for a form that is not taken."""
    told = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    if told == JSON:
        return "json"
    if told == YAML and operation.takes_yaml:
        return "yaml"
    wanted = f"{JSON} or {YAML}" if operation.takes_yaml else JSON
    raise UnknownFormError(f"Send the body as Content-Type: {wanted}.")


def body_of(body: bytes, form: str, operation: Operation) -> bytes:
    """The body as it goes on: strict JSON is written anew. Raises `InvalidError`."""
    if operation.wants is None or form == "yaml":
        return body
    try:
        return strict_json.dump(strict_json.parse(body))
    except strict_json.StrictJSONError as error:
        raise InvalidError(f"The body is no strict JSON: {error}.") from error


class UnknownFormError(InvalidError):
    """A body that is written in a way nobody here reads."""


def schema_of(name: str) -> dict[str, Any]:
    """The JSON schema of one parameter."""
    told: dict[str, Any] = Query.model_json_schema()["properties"][name]
    return told
