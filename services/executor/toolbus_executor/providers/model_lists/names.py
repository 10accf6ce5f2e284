"""Names of models in a provider's list (no I/O)."""

import re
from typing import Any

import msgspec

from toolbus_common.config import Provider
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.known_secrets import KnownSecrets

MAX_MODELS = 1000  # as many as a configuration can name
LARGEST_LIST = 2 * 1024 * 1024  # bytes
_NAME = re.compile(r"[!-~]{1,256}")  # the names that a request can have
_OF_GEMINI = "models/"  # the prefix of Gemini's names, which a request's path adds


class _Model(msgspec.Struct):
    id: Any = None
    name: Any = None


class _List(msgspec.Struct):
    data: list[_Model] | None = None
    models: list[_Model] | None = None


_decode = msgspec.json.Decoder(_List | list[_Model]).decode


def names_in(provider: Provider, body: bytes, secrets: KnownSecrets) -> tuple[str, ...]:
    """Return the names of the models in a provider's list, sorted.

    Names that no request could have, or that contain a secret of the provider, are omitted.

    Raises:
        UpstreamInvalidError: the body is too large, or is no list of models.

    """
    if len(body) > LARGEST_LIST:
        raise UpstreamInvalidError(f"The list of models exceeds {LARGEST_LIST} bytes.")
    try:
        found = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UpstreamInvalidError("The response is no list of models.") from error
    if provider.kind == "gemini":
        listed = found.models if isinstance(found, _List) else None
        names = {_text(each.name).removeprefix(_OF_GEMINI) for each in listed or ()}
    else:
        listed = found.data if isinstance(found, _List) else found
        names = {_text(each.id) for each in listed or ()}
    usable = sorted(each for each in names if _NAME.fullmatch(each) and each not in (".", ".."))
    shown = usable[:MAX_MODELS]
    return tuple(each for each in shown if secrets.struck([each]) == [each])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
