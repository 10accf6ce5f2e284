"""Parser of Postman collections (v2.0 and v2.1)."""

import json
import re
from collections.abc import Iterator
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_cli.importing.openapi_builder import Sample

DEEPEST = 16  # maximum nesting of folders
MAX_REQUESTS = 2_000
_VARIABLE = re.compile(r"\{\{([^{}]+)\}\}")
_SEGMENT = re.compile(r"/:([A-Za-z_][A-Za-z0-9_-]*)")
_LANGUAGES = {"json": "application/json", "xml": "application/xml", "html": "text/html"}


def read(text: str) -> tuple[str, list[Sample], list[str]]:
    """Return the collection's name, its requests, and messages. Raises `CommandError`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"The file is not JSON ({error}); export a collection v2.1.") from error
    if not isinstance(data, dict) or not isinstance(data.get("item"), list):
        raise CommandError("The file is not a Postman collection; export a collection v2.1.")
    variables = _pairs(data.get("variable"))
    samples = []
    for item, tag, auth in _requests(data["item"], "", data.get("auth"), 0):
        samples.append(_sample(item, tag, auth, variables))
        if len(samples) > MAX_REQUESTS:
            raise CommandError(f"The collection exceeds {MAX_REQUESTS} requests; export a part.")
    sound = [each for each in samples if each.url.startswith(("http://", "https://"))]
    if not sound:
        raise CommandError("No request has a complete URL; set the variables and export again.")
    lost = [
        f"'{each.name}' is left out: its URL is incomplete ({each.url[:60]}); set its variables."
        for each in samples
        if each not in sound
    ]
    return str(_dict(data.get("info")).get("name") or "Postman collection"), sound, lost


def _requests(
    items: list[Any], tag: str, auth: Any, depth: int
) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Yield each request with its folder and its effective authorization."""
    for item in items if depth <= DEEPEST else ():
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("item"), list):
            inner = str(item.get("name") or tag)
            yield from _requests(item["item"], inner, item.get("auth") or auth, depth + 1)
        elif isinstance(item.get("request"), dict):
            yield item, tag, item["request"].get("auth") or auth


def _sample(item: dict[str, Any], tag: str, auth: Any, variables: dict[str, str]) -> Sample:
    request = item["request"]
    address = request.get("url")
    raw = str(address.get("raw", "")) if isinstance(address, dict) else str(address or "")
    sample = Sample(
        str(request.get("method") or "GET").upper(),
        _address(raw, variables),
        name=str(item.get("name") or ""),
        tag=tag,
        description=_words(request.get("description")),
        headers=_pairs(request.get("header")),
    )
    _take_auth(sample, _dict(auth))
    _take_body(sample, _dict(request.get("body")), variables)
    return sample


def _address(raw: str, variables: dict[str, str]) -> str:
    """Return a URL with variables replaced; unknown variables in the path become parameters."""
    filled = _filled(raw, variables)
    start, sign, rest = filled.partition("://")
    host, slash, path = rest.partition("/")
    path, question, query = path.partition("?")
    path = _SEGMENT.sub(r"/{\1}", slash + path)
    path = _VARIABLE.sub(r"{\1}", path)
    return f"{start}{sign}{host}{path}{question}{query}"


def _filled(text: str, variables: dict[str, str]) -> str:
    for _ in range(3):  # variables may contain variables
        text = _VARIABLE.sub(lambda match: variables.get(match[1]) or match[0], text)
    return text


def _take_auth(sample: Sample, auth: dict[str, Any]) -> None:
    kind = auth.get("type")
    if kind in ("bearer", "oauth2"):
        sample.headers["Authorization"] = "Bearer x"
    elif kind == "basic":
        sample.headers["Authorization"] = "Basic x"
    elif kind == "apikey":
        fields = _pairs(auth.get("apikey"))
        name = fields.get("key") or "X-API-Key"
        sample.secret = name
        if fields.get("in") == "query":
            sample.url += ("&" if "?" in sample.url else "?") + f"{name}=x"
        else:
            sample.headers[name] = "x"


def _take_body(sample: Sample, body: dict[str, Any], variables: dict[str, str]) -> None:
    mode = body.get("mode")
    if mode == "urlencoded":
        sample.media, sample.body = "application/x-www-form-urlencoded", _pairs(body.get(mode))
    elif mode == "formdata":
        parts = [each for each in body.get(mode) or () if isinstance(each, dict)]
        sample.media = "multipart/form-data"
        sample.files = tuple(str(each.get("key")) for each in parts if each.get("type") == "file")
        sample.body = _pairs([each for each in parts if each.get("type") != "file"])
    elif mode == "raw" and body.get("raw"):
        language = _dict(_dict(body.get("options")).get("raw")).get("language", "json")
        sample.media, sample.body = _raw(_filled(str(body["raw"]), variables), str(language))


def _raw(text: str, language: str) -> tuple[str, Any]:
    try:
        return "application/json", json.loads(text)
    except ValueError:
        return _LANGUAGES.get(language, "text/plain"), {} if language == "json" else text


def _pairs(entries: Any) -> dict[str, str]:
    """Return the enabled entries of a list of keys and values."""
    return {
        str(each["key"]): str(each.get("value") or "")
        for each in (entries if isinstance(entries, list) else ())
        if isinstance(each, dict) and each.get("key") and each.get("disabled") is not True
    }


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(text: Any) -> str:
    return str(text.get("content") or "") if isinstance(text, dict) else str(text or "")
