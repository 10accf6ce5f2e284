"""Checks of path, query and header parameters, with a reason for each."""

import re
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BeforeValidator
from starlette.convertors import StringConvertor, register_url_convertor

from toolbus_common.errors import InvalidError

MAX_PARAMETERS = 16


class _PatternConvertor(StringConvertor):
    """`{name:pattern}`: a pattern of tools, which may contain any character."""

    regex = "(?s:.+)"


class _ApprovalConvertor(StringConvertor):
    """`{name:approval}`: the id of an approval."""

    regex = "[0-9a-f]{32}"


register_url_convertor("pattern", _PatternConvertor())
register_url_convertor("approval", _ApprovalConvertor())


def matching(pattern: str, reason: str) -> BeforeValidator:
    """Return a validator that rejects a text outside the pattern, with this reason."""
    compiled = re.compile(pattern)

    def check(text: object) -> object:
        if isinstance(text, str) and not compiled.fullmatch(text):
            raise ValueError(reason)
        return text

    return BeforeValidator(check)


async def reject_unknown_parameters(request: Request) -> None:
    """Check that the query has only the operation's parameters, each once.

    FastAPI ignores unknown parameters and takes the last of a repeated one.

    Raises:
        InvalidError: a parameter is unknown or repeated, or there are too many.

    """
    route: APIRoute = request.scope["route"]
    known = [field.alias for field in route.dependant.query_params]
    text = request.scope["query_string"].decode("latin-1")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise InvalidError("Too many query parameters. Send each parameter once.") from error
    names = [name for name, _ in pairs]
    if set(names) - set(known) or len(set(names)) < len(names):
        raise InvalidError(
            "Unknown or repeated query parameter. This path accepts each of these at most once: "
            f"{', '.join(known) or 'none'}."
        )
