"""Builder of an OpenAPI document from sample requests."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from toolbus_cli.importing.environment_variables import environment_variable
from toolbus_common.openapi.names import client_safe

DEEPEST = 12
_CREDENTIAL = re.compile(
    r"token|secret|passw|auth|credential|cookie|session|(?:^|[_-])(?:api)?[_-]?key|apikey",
    re.IGNORECASE,
)
_UNSAID = frozenset(
    {"accept", "accept-encoding", "accept-language", "connection", "content-length", "content-type",
     "host", "origin", "referer", "user-agent"}
)  # fmt: skip


@dataclass(slots=True)
class Sample:
    """One sample request; its URL may have path parameters such as {id}."""

    method: str
    url: str
    name: str = ""
    tag: str = ""
    description: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None  # a sample, or the members of a form
    media: str = ""
    files: tuple[str, ...] = ()
    secret: str = ""  # the name of the header or parameter with the credential


@dataclass(slots=True)
class Sketch:
    """An OpenAPI document, references to credentials, and messages for the operator.

    `credentials` maps each security scheme to a reference to an environment variable. Credentials
    in samples are never copied.
    """

    document: dict[str, Any]
    credentials: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_yaml(self) -> str:
        """Return the document as YAML."""
        return yaml.safe_dump(self.document, sort_keys=False, allow_unicode=True)


def sketched(samples: list[Sample], title: str, server: str) -> Sketch:
    """Build a document from the requests to the most frequent origin.

    A note reports each request to another origin.
    """
    places = Counter(_origin(each.url) for each in samples)
    base = places.most_common(1)[0][0]
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1"},
        "servers": [{"url": base}],
        "paths": {},
    }
    sketch = Sketch(document)
    for sample in samples:
        if _origin(sample.url) == base:
            _add(sketch, sample, server)
        else:
            sketch.notes.append(
                f"'{sample.name or sample.url[:60]}' is left out: its server is "
                f"{_origin(sample.url)}."
            )
    return sketch


def is_credential(name: str) -> bool:
    """Return whether a header or parameter of this name usually contains a credential."""
    return bool(_CREDENTIAL.search(name))


def schema_of(sample: Any, depth: int = 0) -> dict[str, Any]:
    """Return a schema that the sample matches."""
    if depth > DEEPEST:
        return {}
    if isinstance(sample, dict):
        members = {name: schema_of(each, depth + 1) for name, each in sample.items()}
        return {"type": "object", "properties": members}
    if isinstance(sample, list):
        return {"type": "array", "items": schema_of(sample[0], depth + 1) if sample else {}}
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(sample, kind):
            return {"type": name}
    return {}


def _origin(url: str) -> str:
    target = urlsplit(url)
    return f"{target.scheme}://{target.netloc.rpartition('@')[2]}"


def _add(sketch: Sketch, sample: Sample, server: str) -> None:
    target = urlsplit(sample.url)
    path = unquote(target.path) or "/"
    made = _named(sample, path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{([^{}]+)\}", path)
    ]
    wanted: list[str] = []
    given = [("query", *pair) for pair in parse_qsl(target.query, keep_blank_values=True)]
    given += [("header", *pair) for pair in sample.headers.items()]
    for location, name, value in given:
        if name == sample.secret or is_credential(name):
            wanted.append(_scheme(sketch, server, location, name, value))
        else:
            parameters += _parameter(location, name, value)
    if parameters:
        made["parameters"] = list(
            {(each["in"], each["name"]): each for each in parameters}.values()
        )
    if sample.media:
        made["requestBody"] = _body(sample)
    made["responses"] = {"default": {"description": "The response."}}
    if wanted:
        made["security"] = [{name: [] for name in wanted}]
    _place(sketch, path, sample.method.lower(), made)


def _named(sample: Sample, path: str) -> dict[str, Any]:
    """Return the operation's id, tags and description."""
    called = client_safe(sample.name) or client_safe(f"{sample.method.lower()}_{path}")
    fields = {
        "operationId": called,
        "tags": [sample.tag] if sample.tag else [],
        "summary": sample.name if sample.name != called else "",
        "description": sample.description[:1000],
    }
    return {name: value for name, value in fields.items() if value}


def _place(sketch: Sketch, path: str, method: str, made: dict[str, Any]) -> None:
    item = sketch.document["paths"].setdefault(path, {})
    if method in item:
        sketch.notes.append(
            f"'{made['operationId']}' is left out: {method.upper()} {path} already exists."
        )
    else:
        item[method] = made


def _parameter(location: str, name: str, value: str) -> list[dict[str, Any]]:
    """Return a list with the parameter; empty for a header that every client sends."""
    if location == "header" and name.lower() in _UNSAID:
        return []
    default = {"default": value} if value and "{{" not in value else {}
    return [{"name": name, "in": location, "schema": {"type": "string"} | default}]


def _scheme(sketch: Sketch, server: str, location: str, name: str, value: str) -> str:
    """Add the security scheme of a credential to the document; return its name."""
    word = value.partition(" ")[0].lower()
    if name.lower() == "authorization" and word in ("bearer", "basic"):
        called, scheme = word, {"type": "http", "scheme": word}
        what = "the token after 'Bearer'" if word == "bearer" else "user:password"
    else:
        called = client_safe(name) or "key"
        scheme = {"type": "apiKey", "in": location, "name": name}
        what = f"the value of the {location} {name}"
    components = sketch.document.setdefault("components", {"securitySchemes": {}})
    components["securitySchemes"][called] = scheme
    variable = environment_variable(server, called)
    if called not in sketch.credentials:
        sketch.credentials[called] = f"${{env:{variable}}}"
        sketch.notes.append(f"Set {variable} to {what}.")
    return called


def _body(sample: Sample) -> dict[str, Any]:
    schema = schema_of(sample.body) if sample.body is not None else {}
    for name in sample.files:
        schema.setdefault("properties", {})[name] = {"type": "string", "format": "binary"}
        schema["type"] = "object"
    content: dict[str, Any] = {"schema": schema}
    if isinstance(sample.body, dict | list) and not _holds_credential(sample.body):
        content["example"] = sample.body
    return {"required": True, "content": {sample.media: content}}


def _holds_credential(body: Any) -> bool:
    return bool(_CREDENTIAL.search(json.dumps(body)))
