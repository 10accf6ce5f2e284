"""Names of models in a provider's list (no I/O)."""

import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import msgspec

from toolbus_common.config import Provider
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.known_secrets import KnownSecrets

MAX_MODELS = 1000  # as many as a configuration can name
LARGEST_LIST = 2 * 1024 * 1024  # bytes
LONGEST_TOKEN = 2048  # of a next page
_NAME = re.compile(r"[!-~]{1,256}")  # the names that a request can have
_OF_GEMINI = "models/"  # the prefix of Gemini's names, which a request's path adds
_OF_VERTEX = re.compile(r"publishers/[a-z]+/models/")  # as for Gemini


class _Model(msgspec.Struct, rename="camel"):
    id: Any = None
    name: Any = None
    model_id: Any = None
    inference_profile_id: Any = None


class _List(msgspec.Struct, rename="camel"):
    data: list[_Model] | None = None
    models: list[_Model] | None = None
    publisher_models: list[_Model] | None = None  # of Vertex AI
    model_summaries: list[_Model] | None = None  # of Bedrock, as the next field
    inference_profile_summaries: list[_Model] | None = None
    next_page_token: Any = None
    next_token: Any = None


_decode = msgspec.json.Decoder(_List | list[_Model]).decode


class Page(NamedTuple):
    """The names on one page of a list, and the token of the next page; empty for the last one."""

    names: frozenset[str]
    next_token: str


def page_in(provider: Provider, body: bytes) -> Page:
    """Return one page of a provider's list.

    Raises:
        UpstreamInvalidError: the body is too large, or is no list of models.

    """
    if len(body) > LARGEST_LIST:
        raise UpstreamInvalidError(
            f"The upstream's list of models exceeds {LARGEST_LIST} bytes. Check the provider's "
            "'url'."
        )
    try:
        found = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UpstreamInvalidError(
            "The upstream's response is not a list of models. Check the provider's 'url'."
        ) from error
    if isinstance(found, list):
        found = _List(data=found)
    token = _text(found.next_page_token) or _text(found.next_token)
    names = frozenset(_names(provider.kind, found))
    return Page(names, token if len(token) <= LONGEST_TOKEN else "")


def shown_names(names: Collection[str], secrets: KnownSecrets) -> tuple[str, ...]:
    """Return the names to publish, sorted.

    Names that no request could have, or that contain a secret of the provider, are omitted.
    """
    usable = sorted(each for each in names if _NAME.fullmatch(each) and each not in (".", ".."))
    shown = usable[:MAX_MODELS]
    return tuple(each for each in shown if secrets.struck([each]) == [each])


def _names(kind: str, found: _List) -> Iterator[str]:
    if kind == "gemini":
        for each in found.models or ():
            yield _text(each.name).removeprefix(_OF_GEMINI)
    elif kind == "vertex":
        for each in found.publisher_models or ():
            yield _OF_VERTEX.sub("", _text(each.name), count=1)
    elif kind == "bedrock":
        for each in found.model_summaries or ():
            yield _text(each.model_id)
        for each in found.inference_profile_summaries or ():
            yield _text(each.inference_profile_id)
    else:
        for each in found.data or ():
            yield _text(each.id)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
