"""Placeholders: the texts that replace what a guard redacts, and the original values.

A placeholder is `[redacted:<rule>:<16 hex digits>]`. The digits are an HMAC of the value with a key
of the run, so equal values have equal placeholders within a run, and no other run can compare them.
All services derive the key from the same file, the key file of the person keys. While that key is
replaced, the values of every accepted key can be restored.

Values that a guard may restore are stored encrypted, for a day. The name of an entry is an HMAC
of the principal, the run and the digits, so no other principal and no other run can read it.
"""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from copy import copy
from hashlib import sha256

import msgspec
from msgspec import Struct
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from toolbus_common.crypto.aead import Aead, DecryptionError, derived_key
from toolbus_common.errors import BusDownError
from toolbus_common.guards.texts.json_texts import JsonTexts
from toolbus_common.nats.kv_bucket import Bucket

# Linear: the class of the rule's characters does not contain the colon that ends it.
PLACEHOLDER = re.compile(r"\[redacted:([A-Za-z0-9_.-]{1,64}):([0-9a-f]{16})\]")
_MARK = b"[redacted:"
_NOT_IN_RULES = re.compile(r"[^A-Za-z0-9_.-]")
MOST_VALUES = 256  # stored or restored for one document
LARGEST_VALUE = 64 << 10


class _Stored(Struct):
    """A value as it is stored, with the guard that replaced it."""

    guard: str
    value: str


class _Keys:
    """The keys that are derived from one secret."""

    def __init__(self, secret: bytes) -> None:
        self.digits = derived_key(secret, b"toolbus placeholders: digits")
        self._names = derived_key(secret, b"toolbus placeholders: names")
        self.aead = Aead(derived_key(secret, b"toolbus placeholders: values"))

    def entry(self, principal_id: str, run: str, placeholder: str) -> str:
        """Return the name of a placeholder's entry, which does not depend on the rule's name."""
        digits = placeholder[-17:-1]
        return hmac.digest(self._names, _joined(principal_id, run, digits), sha256).hex()


class Placeholders:
    """Placeholders of one service. `bucket` returns the bucket of the values (`tb_placeholders`).

    Without a bucket, values cannot be stored or restored. `secrets` returns the accepted secrets;
    the first is in use.
    """

    def __init__(
        self,
        secrets: Callable[[], Sequence[bytes]],
        bucket: Callable[[], Awaitable[Bucket]] | None = None,
    ) -> None:
        self._secrets = secrets
        self._derived: dict[bytes, _Keys] = {}
        self._bucket = bucket

    def _keys(self) -> list[_Keys]:
        accepted = self._secrets()
        if self._derived.keys() != set(accepted):
            self._derived = {each: _Keys(each) for each in accepted}
        return [self._derived[each] for each in accepted]

    @property
    def unstored(self) -> "Placeholders":
        """The same placeholders, but without a bucket: no value is stored or restored."""
        without = copy(self)
        without._bucket = None  # noqa: SLF001 - of this class
        return without

    def text_of(self, principal_id: str, run: str, rule: str, value: str) -> str:
        """Return the placeholder of a value."""
        run_key = hmac.digest(self._keys()[0].digits, _joined(principal_id, run), sha256)
        digits = hmac.digest(run_key, value.encode("utf-8", "surrogatepass"), sha256).hex()[:16]
        return f"[redacted:{_NOT_IN_RULES.sub('_', rule)[:64] or 'value'}:{digits}]"

    async def store(
        self, principal_id: str, run: str, guard: str, values: Mapping[str, str]
    ) -> None:
        """Store the values of placeholders. Raises `BusDownError`.

        `values` maps placeholders to values. Values longer than `LARGEST_VALUE`, and values beyond
        the first `MOST_VALUES`, are not stored: their placeholders cannot be restored.
        """
        if self._bucket is None or not values:
            return
        bucket = await self._bucket()
        kept = [each for each in values.items() if len(each[1]) <= LARGEST_VALUE][:MOST_VALUES]

        async def put(placeholder: str, value: str) -> None:
            keys = self._keys()[0]
            entry = keys.entry(principal_id, run, placeholder)
            plain = msgspec.msgpack.encode(_Stored(guard, value))
            await bucket.put(entry, keys.aead.seal(plain, entry.encode()))

        try:
            await asyncio.gather(*(put(*each) for each in kept))
        except (NatsError, JetStreamError) as error:
            raise BusDownError("The redacted values could not be stored; retry.") from error

    async def restore(
        self, principal_id: str, run: str, body: bytes, guards: Collection[str]
    ) -> bytes:
        """Return a JSON document with the values of its placeholders.

        Only placeholders that one of `guards` made in this run are replaced; all others stay.
        Raises `BusDownError`.
        """
        if self._bucket is None or not guards or _MARK not in body:
            return body
        document = JsonTexts(body)
        found = {
            each[0]: "" for text in document.texts for each in PLACEHOLDER.finditer(text)
        }  # a dictionary, because it keeps the order
        values: dict[str, str] = {}
        bucket = await self._bucket()

        async def look_up(placeholder: str) -> None:
            stored = await self._value(bucket, principal_id, run, placeholder)
            if stored is not None and stored.guard in guards:
                values[placeholder] = stored.value

        await asyncio.gather(*map(look_up, [*found][:MOST_VALUES]))
        if not values:
            return body
        return document.replaced(
            lambda _, text: PLACEHOLDER.sub(lambda match: values.get(match[0], match[0]), text)
        )

    async def _value(
        self, bucket: Bucket, principal_id: str, run: str, placeholder: str
    ) -> _Stored | None:
        for keys in self._keys():
            entry = keys.entry(principal_id, run, placeholder)
            change = await bucket.get(entry)
            if change is None or change.value is None:
                continue
            with suppress(DecryptionError, msgspec.MsgspecError):
                plain = keys.aead.open(change.value, entry.encode())
                return msgspec.msgpack.decode(plain, type=_Stored)
        return None


def is_stored_with(secret: bytes, entry: str, value: bytes) -> bool:
    """Return whether the value of an entry was encrypted with this secret."""
    try:
        _Keys(secret).aead.open(value, entry.encode())
    except DecryptionError:
        return False
    return True


def _joined(*parts: str) -> bytes:
    """Join parts without ambiguity: different parts give different bytes."""
    return msgspec.msgpack.encode(parts)
