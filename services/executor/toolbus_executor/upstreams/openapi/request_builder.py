"""Builder of an operation's HTTP request. Invalid arguments are rejected."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import msgspec

from toolbus_common.openapi import Body, Operation, Parameter
from toolbus_executor.upstreams.openapi.parameter_encoding import (
    ArgumentError,
    Pairs,
    form_pairs,
    in_cookie,
    in_header,
    in_path,
    in_query,
    quoted,
    text_of,
)
from toolbus_executor.upstreams.openapi.security import Credentials

LONGEST_TARGET = 16 * 1024
_LITERAL = "/:@!$&'()*+,;=~-._%"  # characters that stay unencoded in a path
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_MEDIA = re.compile(r"[\w!#$&^.+-]{1,64}/[\w!#$&^.+-]{1,64}")
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Request:
    """An HTTP request. Its target is relative to the base address."""

    method: str
    path: str
    query: Pairs = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    cookies: Pairs = field(default_factory=list)
    media: str = ""
    body: bytes = b""

    @property
    def target(self) -> str:
        """The path with the query."""
        query = "&".join(f"{name}={value}" for name, value in self.query)
        return f"{self.path}?{query}" if query else self.path


def request_of(operation: Operation, arguments: Any, credentials: Credentials) -> Request:
    """Return the request for these arguments, with the API's credentials.

    Raises:
        ArgumentError: an argument is missing or unknown, or cannot be sent.

    """
    values = _checked(operation, arguments)
    request = Request(operation.method, _path(operation, values))
    for parameter in operation.parameters:
        if parameter.argument in values:
            _add_parameter(request, parameter, values[parameter.argument])
    credentials.refuse_set(request.query, request.cookies)
    if operation.body is not None and "body" in values:
        _write(request, operation.body, values["body"])
    credentials.add(operation.security, request)
    if len(request.target) > LONGEST_TARGET:
        raise ArgumentError(f"the address would be longer than {LONGEST_TARGET} bytes")
    return request


def _checked(operation: Operation, arguments: Any) -> dict[str, Any]:
    """Return the arguments that are present. Null counts as absent, except for `body`."""
    if not isinstance(arguments, dict):
        raise ArgumentError("the arguments must be an object")
    schema = operation.definition["inputSchema"]
    known = schema["properties"]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ArgumentError(
            f"there is no argument {unknown[0][:64]!r}; known names: {', '.join(known) or 'none'}"
        )
    present = {name: each for name, each in arguments.items() if each is not None or name == "body"}
    missing = [name for name in schema.get("required", ()) if name not in present]
    if missing:
        raise ArgumentError(f"the argument {missing[0]!r} is missing")
    return present


def _path(operation: Operation, values: Mapping[str, Any]) -> str:
    parameters = {each.name: each for each in operation.parameters if each.place == "path"}
    pieces = _PLACEHOLDER.split(operation.path)
    for number in range(1, len(pieces), 2):
        parameter = parameters[pieces[number]]
        pieces[number] = in_path(parameter, values[parameter.argument])
    for number in range(0, len(pieces), 2):
        pieces[number] = quote(pieces[number], safe=_LITERAL)
    path = "".join(pieces)
    if any(step in (".", "..") for step in path.split("/")):
        raise ArgumentError("the arguments together would change the path")
    return path


def _add_parameter(request: Request, parameter: Parameter, value: Any) -> None:
    if parameter.place == "query":
        request.query += in_query(parameter, value)
    elif parameter.place == "header":
        request.headers.append((parameter.name, in_header(parameter, value)))
    elif parameter.place == "cookie":
        request.cookies += in_cookie(parameter, value)


def _write(request: Request, body: Body, value: Any) -> None:
    request.media = body.media
    if body.form == "json":
        request.body = _encode(value)
    elif body.form == "text":
        request.body = text_of(value).encode("utf-8", "replace")
    elif body.form == "binary":
        request.body = _bytes(value, "body")
    elif not isinstance(value, dict):
        raise ArgumentError("body must be an object, a member for each part of the form")
    elif body.form == "form":
        pairs = form_pairs(value, body.joined)
        request.body = "&".join(f"{name}={each}" for name, each in pairs).encode()
    else:
        boundary = token_hex(16)
        request.media = f"multipart/form-data; boundary={boundary}"
        request.body = _multipart(body, value, boundary)


def _multipart(body: Body, value: dict[str, Any], boundary: str) -> bytes:
    media = dict(body.parts)
    pieces: list[bytes] = []
    for name, values in value.items():
        for each in values if isinstance(values, list) else [values]:
            if name in body.files:
                head, data = _file(name, each)
            elif isinstance(each, dict | list) or "json" in media.get(name, ""):
                head, data = _head(name, media=media.get(name, "application/json")), _encode(each)
            else:
                data = text_of(each).encode("utf-8", "replace")
                head = _head(name, media=media.get(name, ""))
            pieces.append(b"--%b\r\n%b\r\n%b\r\n" % (boundary.encode(), head, data))
    return b"".join(pieces) + b"--%b--\r\n" % boundary.encode()


def _file(name: str, upload: Any) -> tuple[bytes, bytes]:
    if not isinstance(upload, dict):
        raise ArgumentError(f"{name} must be an object with data in base64 and a filename")
    media = upload.get("media_type") or "application/octet-stream"
    if not isinstance(media, str) or not _MEDIA.fullmatch(media):
        raise ArgumentError(f"the media_type of {name} is not a media type, such as image/png")
    filename = text_of(upload.get("filename")) or name
    return _head(name, filename, media), _bytes(upload.get("data"), f"the data of {name}")


def _head(name: str, filename: str = "", media: str = "") -> bytes:
    lines = f'Content-Disposition: form-data; name="{_in_quotes(name)}"'
    lines += f'; filename="{_in_quotes(filename)}"' if filename else ""
    lines += f"\r\nContent-Type: {media}" if media else ""
    return f"{lines}\r\n".encode("utf-8", "replace")


def _in_quotes(text: str) -> str:
    """Percent-encode the characters that would end the name or its line, as HTML specifies."""
    return re.sub(r'["\x00-\x1f\x7f]', lambda match: quoted(match[0]), text)


def _bytes(value: Any, what: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ArgumentError(f"{what} must be base64") from error
