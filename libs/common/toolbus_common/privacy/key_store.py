"""Person keys of a service. They are watched in their bucket, and created on first use."""

import asyncio
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolbus_common.crypto.key_file import KeyFiles
from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.privacy.person_key import CHECK, TOKEN, Master, Opened, PersonKey

log = logging.getLogger(__name__)

LEARNED_SECONDS = 3.0
ERASED = "(erased)"
OTHER_KEY = (
    "The person keys were encrypted with another people.key; give every service the same file "
    "(TOOLBUS_PEOPLE_KEY). Until then, events are published without personal data."
)


class PersonKeys:
    """The keys of all persons, in memory. Encryption for a known person needs no request.

    The entry `CHECK` of the bucket says which of the accepted master keys encrypts new keys. If it
    names another one, keys are neither read nor created; `fault` is then the reason.
    """

    def __init__(self, key_file: Path | KeyFiles) -> None:
        self.files = key_file if isinstance(key_file, KeyFiles) else KeyFiles(key_file)
        self._keys = self.files.keys
        self._masters = [*map(Master, self._keys)]
        self._lead = self._masters[0]  # encrypts new keys
        self._names = self._lead.names
        self._mark: bytes | None = None  # the entry `CHECK`
        self._unread: dict[str, bytes] = {}  # entries of a master key that is not known yet
        self._by_entry: dict[str, PersonKey] = {}
        self._by_name: dict[str, PersonKey] = {}
        self._by_pseudonym: dict[str, PersonKey] = {}
        self._bucket: Bucket | None = None
        self.fault = ""

    def open(self, bucket: Bucket) -> None:
        """Set the bucket of the keys."""
        self._bucket = bucket

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket."""
        if change is None:
            return
        if change.key == CHECK:
            self._compare(change.value)
            return
        self._drop(change.key)
        if change.value is not None:
            self._take(change.key, change.value)

    def current_fault(self) -> str:
        """Return `fault` after reading changed key files again."""
        self.refresh()
        return self.fault

    def known(self, name: str) -> PersonKey | None:
        """Return the key of a person; None if it is not in memory."""
        return self._by_name.get(name)

    def with_pseudonym(self, pseudonym: str) -> PersonKey | None:
        """Return the key of the person with this pseudonym; None if it is not in memory."""
        return self._by_pseudonym.get(pseudonym)

    def pseudonym(self, name: str) -> str:
        """Return the pseudonym of a person. Raises `KeyError` if the key is not in memory."""
        return self._by_name[name].pseudonym

    def seal(self, name: str, text: str) -> str:
        """Encrypt a text with a person's key. Raises `KeyError` if the key is not in memory."""
        return self._by_name[name].seal(text)

    async def learn(self, names: Iterable[str]) -> None:
        """Load the keys of these persons, and create the missing keys. Raises `BusDownError`."""
        try:
            async with asyncio.timeout(LEARNED_SECONDS):
                for name in names:
                    if name not in self._by_name:
                        await self._find_or_create(name)
        except TimeoutError as error:
            raise BusDownError(
                "The person keys of an event could not be read in time; retry."
            ) from error

    async def read_all(self) -> None:
        """Load all keys of the bucket. Raises `BusDownError`."""
        for each in await self._opened().present():
            self.apply_change(each)

    async def find(self, name: str) -> tuple[PersonKey, int] | None:
        """Return the key of a person and its revision in the bucket; None if there is no key.

        Raises `BusDownError`. If the master key differs, its reason is `fault`.
        """
        await self._check(self._opened())
        entry = self.entry_of(name)
        found = await self._opened().get(entry)
        if found is None or found.value is None:
            return None
        person = self._read(entry, found.value)
        return (person, found.revision) if person is not None else None

    def entry_of(self, name: str) -> str:
        """Return the name of the bucket entry that contains a person's key."""
        return self._names.entry_of(name)

    # -- reading -----------------------------------------------------------------------------

    def opened(self, token: str) -> Opened | None:
        """Return a decrypted token.

        Return None if the person's key does not exist or the token is damaged.
        """
        person = self._by_pseudonym.get(token.partition(".")[0])
        return person.open(token) if person is not None else None

    def reveal(self, text: str) -> str:
        """Return a text with its tokens decrypted. JSON stays valid JSON."""
        return TOKEN.sub(self._plain, text) if "~" in text else text

    def revealed(self, value: Any) -> Any:
        """Return a JSON value with the tokens in all its strings decrypted."""
        if isinstance(value, str):
            return self.reveal(value)
        if isinstance(value, list | tuple):
            return type(value)(map(self.revealed, value))
        if isinstance(value, dict):
            return {self.reveal(name): self.revealed(each) for name, each in value.items()}
        return value

    def pseudonym_of(self, name: str) -> str:
        """Return the pseudonym of a person; `~` if the person is not known.

        The name can have a kind (`operator:bo`). Otherwise users are searched first, then operators
        and admins.
        """
        kinds = ("", "user:", "operator:", "admin:")
        people = filter(None, (self.known(f"{kind}{name}") for kind in kinds))
        return next((person.pseudonym for person in people), "~")

    def _plain(self, match: re.Match[str]) -> str:
        token = match[0]
        if "." not in token:
            return self._by_pseudonym[token].shown if token in self._by_pseudonym else token
        opened = self.opened(token)
        if opened is None:
            return ERASED
        if match.string[: match.start()].endswith('"') and match.string[match.end() :][:1] == '"':
            return json.dumps(opened.text, ensure_ascii=False)[1:-1]
        return opened.text

    # -- storing -----------------------------------------------------------------------------

    async def _find_or_create(self, name: str) -> None:
        bucket = self._opened()
        await self._check(bucket)
        entry = self.entry_of(name)
        while name not in self._by_name:
            found = await bucket.get(entry)
            if found is not None and found.value is not None:
                self._take(entry, found.value)
                if name not in self._by_name:
                    raise BusDownError(OTHER_KEY)
                return
            value = self._lead.seal(PersonKey.new(name), entry)
            if await bucket.swap(entry, value, 0) is not None:
                self._take(entry, value)

    async def _check(self, bucket: Bucket) -> None:
        """Compare the master key with the entry that identifies it. Create a missing entry.

        Raises `BusDownError`.
        """
        found = await bucket.get(CHECK)
        if found is None or found.value is None:
            last = found.revision if found is not None else 0
            if await bucket.swap(CHECK, self._lead.mark, last) is None:
                found = await bucket.get(CHECK)
        if found is not None:
            self._compare(found.value)
        if self.fault:
            raise BusDownError(self.fault)

    def _compare(self, mark: bytes | None) -> None:
        self._mark = mark
        if not self._follow():
            self.refresh()

    def _follow(self) -> bool:
        """Use the master key that the entry `CHECK` names; return whether it is accepted."""
        self.fault = ""
        if self._mark is None:
            self._lead, self._names = self._masters[0], self._masters[0].names
            return True
        for master in self._masters:
            names = master.names_in(self._mark)
            if names is not None:
                self._lead, self._names = master, names
                return True
        self.fault = OTHER_KEY
        return False

    def refresh(self) -> None:
        """Read changed key files again, and then the entries that no key could decrypt before."""
        self.files.refresh()
        if self.files.keys == self._keys:
            return
        self._keys = self.files.keys
        self._masters = [*map(Master, self._keys)]
        self._follow()
        unread, self._unread = self._unread, {}
        for entry, value in unread.items():
            self._take(entry, value)

    def _read(self, entry: str, value: bytes) -> PersonKey | None:
        """Return a decrypted person key; None if its master key is not known."""
        found = (each.open(entry, value) for each in self._masters)
        return next((person for person in found if person is not None), None)

    def _take(self, entry: str, value: bytes) -> None:
        person = self._read(entry, value)
        if person is None:
            self._unread[entry] = value
            return
        self._by_entry[entry] = self._by_name[person.name] = person
        self._by_pseudonym[person.pseudonym] = person

    def _drop(self, entry: str) -> None:
        self._unread.pop(entry, None)
        person = self._by_entry.pop(entry, None)
        if person is not None:
            self._by_name.pop(person.name, None)
            self._by_pseudonym.pop(person.pseudonym, None)

    def _opened(self) -> Bucket:
        if self._bucket is None:
            raise BusDownError(
                "The service is starting and has not opened the bucket of person keys yet; retry."
            )
        return self._bucket
