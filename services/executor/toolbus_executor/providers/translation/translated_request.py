"""Translation of the request of a call, for a provider that does not serve the client's API."""

import msgspec

from toolbus_common.config import Provider
from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.base import Translation
from toolbus_executor.providers.usage import UNREADABLE


def translated_request(
    call: CallAdmitted, served: frozenset[str], provider: Provider, *, limited: bool
) -> tuple[Translation, bytes]:
    """Return the translation for a provider that does not serve the client's API, and the body.

    Raises:
        InvalidError: the request cannot be translated. Nothing was sent.

    """
    # Most providers serve the API of their clients, and the import takes 40 ms.
    from toolbus_executor.providers.translation.select import translation_for  # noqa: PLC0415

    try:
        translation = translation_for(call.method, served, provider.max_output, limited=limited)
        assert translation is not None  # noqa: S101 - the provider does not serve the method
        # The provider's name of the model decides the form of some members.
        body = msgspec.json.decode(call.arguments, type=dict) | {"model": call.tool}
        return translation, msgspec.json.encode(translation.request(body))
    except InvalidError as error:
        error.data["sent"] = False
        raise
    except UNREADABLE as error:
        raise InvalidError(
            f"The body is not a valid JSON object ({error}); correct it.", sent=False
        ) from error
