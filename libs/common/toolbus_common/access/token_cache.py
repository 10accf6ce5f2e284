"""Access tokens that were shown and found good: who holds them, as a service knows it now."""

from collections.abc import Callable
from time import time

from pydantic import ValidationError

from toolbus_common.contracts.queries.identity import Bearer
from toolbus_common.nats.kv_bucket import Bucket, Change

SWEEP_AT = 1024
BELOW = "~"  # between a grant's name and that of what its tokens were exchanged for


def is_person(name: str) -> bool:
    """Whether this is a `Bearer.name`, somebody who signed in: no key is called so."""
    return ":" in name


class Bearers:
    """Holders by the hash of the token's proof; fed with the changes of tb_tokens."""

    def __init__(self) -> None:
        self._held: dict[str, Bearer] = {}
        self._users: dict[str, str] = {}
        self._sweep_at = SWEEP_AT
        self._bucket: Bucket | None = None
        self.on_gone: Callable[[str], None] = lambda _: None  # a holder's name lost a token

    def open(self, bucket: Bucket) -> None:
        """Look there for tokens that were not heard of yet."""
        self._bucket = bucket

    def hear(self, change: Change | None) -> None:
        """Take one change of the bucket."""
        if change is None:
            return
        if change.value is None:
            gone = self._held.pop(change.key, None)
            if gone is not None:
                if all(each.name != gone.name for each in self._held.values()):
                    self._users.pop(gone.name, None)
                self.on_gone(gone.name)
            return
        try:
            self.take(change.key, Bearer.decode(change.value))
        except ValidationError:
            self._held.pop(change.key, None)  # a newer Toolbus wrote it: nobody holds it here

    def take(self, token_hash: str, bearer: Bearer) -> None:
        """Know a holder."""
        self._held[token_hash] = bearer
        self._users[bearer.name] = bearer.user
        if len(self._held) >= self._sweep_at:
            now = time()
            self._held = {name: each for name, each in self._held.items() if each.ends > now}
            self._users = {each.name: each.user for each in self._held.values()}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._held))

    def find(self, token_hash: str, now: float) -> Bearer | None:
        """Who holds a token that is good now."""
        found = self._held.get(token_hash)
        return found if found is not None and now < found.ends else None

    def known(self, token_hash: str) -> Bearer | None:
        """The same, now."""
        return self.find(token_hash, time())

    def user_of(self, name: str) -> str:
        """Who is known under the name that stands for a key's. Raises `KeyError`."""
        return self._users[name]

    def of_grant(self, grant: str) -> list[str]:
        """The hashes of all tokens that were made of a grant."""
        below = f"{grant}{BELOW}"
        return [
            name
            for name, bearer in self._held.items()
            if bearer.grant == grant or bearer.grant.startswith(below)
        ]

    async def learn(self, token_hash: str) -> Bearer | None:
        """The same, looked up where it may have been written a moment ago."""
        entry = await self._bucket.get(token_hash) if self._bucket is not None else None
        if entry is not None:
            self.hear(entry)
        return self.find(token_hash, time())
