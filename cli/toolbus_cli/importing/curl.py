"""Parser of cURL command lines."""

import json
import shlex
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from toolbus_cli.errors import CommandError
from toolbus_cli.importing.openapi_builder import Sample

_METHODS = ("-X", "--request")
_HEADERS = ("-H", "--header")
_DATA = (
    "-d",
    "--data",
    "--data-raw",
    "--data-ascii",
    "--data-binary",
    "--data-urlencode",
    "--json",
)
_FORMS = ("-F", "--form", "--form-string")
_USERS = ("-u", "--user")
_COOKIES = ("-b", "--cookie")
_URLS = ("--url",)
# Options with a value that do not change the request.
_IGNORED = (
    "-A", "--user-agent", "-e", "--referer", "-o", "--output", "-m", "--max-time", "-x", "--proxy",
    "--connect-timeout", "--retry", "--cacert", "-E", "--cert", "--key", "-w", "--write-out", "-c",
    "--cookie-jar", "--resolve", "-T", "--max-redirs",
)  # fmt: skip
_WITH_WORD = (*_METHODS, *_HEADERS, *_DATA, *_FORMS, *_USERS, *_COOKIES, *_URLS, *_IGNORED)
_FORM = "application/x-www-form-urlencoded"


def read(line: str) -> Sample:
    """Parse a cURL command line into its request. Raises `CommandError`."""
    try:
        words = shlex.split(line.replace("\\\r\n", " ").replace("\\\n", " "))
    except ValueError as error:
        raise CommandError(f"Invalid cURL command ({error}); put it in single quotes.") from error
    if not words or words[0] != "curl":
        raise CommandError("Not a cURL command; it must begin with 'curl' and be in single quotes.")
    options = list(_options(words[1:]))
    urls = [value for name, value in options if name in ("", *_URLS)]
    if len(urls) != 1:
        raise CommandError("The cURL command must have exactly one URL; import URLs one by one.")
    url = urls[0] if "://" in urls[0] else f"http://{urls[0]}"
    sample = Sample("GET", url, headers=dict(_headers(options)))
    _take_body(sample, options)
    methods = [value for name, value in options if name in _METHODS]
    sample.method = methods[-1].upper() if methods else sample.method
    return sample


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each option with its value; a positional argument has an empty name."""
    rest = iter(words)
    for word in rest:
        name, sign, value = word.partition("=")
        if word in _WITH_WORD:
            yield word, next(rest, "")
        elif sign and word.startswith("--") and name in _WITH_WORD:
            yield name, value
        elif len(word) > len("-X") and word[:2] in _WITH_WORD and not word.startswith("--"):
            yield word[:2], word[2:]
        elif word.startswith("-"):
            yield word, ""
        else:
            yield "", word


def _headers(options: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, value in options:
        if name in _HEADERS:
            header, _, content = value.partition(":")
            yield header.strip(), content.strip()
        elif name in _USERS:
            yield "Authorization", f"Basic {b64encode(value.encode()).decode()}"
        elif name in _COOKIES:
            yield "Cookie", value


def _take_body(sample: Sample, options: list[tuple[str, str]]) -> None:
    names = {name for name, _ in options}
    data = [value for name, value in options if name in _DATA]
    parts = [value.partition("=") for name, value in options if name in _FORMS]
    if names & {"-G", "--get"}:
        sample.url += ("&" if "?" in sample.url else "?") + "&".join(data)
        return
    if names & {"-I", "--head"}:
        sample.method = "HEAD"
    if parts:
        sample.method, sample.media = "POST", "multipart/form-data"
        sample.body = {name: value for name, _, value in parts if value[:1] not in ("@", "<")}
        sample.files = tuple(name for name, _, value in parts if value[:1] in ("@", "<"))
    elif data:
        declared = {name.lower(): value for name, value in sample.headers.items()}
        media = declared.get("content-type", "application/json" if "--json" in names else _FORM)
        sample.method = "POST"
        sample.media, sample.body = _body(media.partition(";")[0].strip(), "&".join(data))


def _body(media: str, text: str) -> tuple[str, Any]:
    """Return the media type and a sample; JSON is detected even if labelled as a form."""
    try:
        sample = json.loads(text)
    except ValueError:
        sample = None
    if isinstance(sample, dict | list):
        return ("application/json" if media == _FORM else media), sample
    if media == _FORM:
        return media, dict(parse_qsl(text, keep_blank_values=True))
    return media, text
