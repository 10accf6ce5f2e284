"""Cache of verified access tokens and their holders, updated from the bucket tb_tokens."""

from collections.abc import Callable
from time import time

from pydantic import ValidationError

from toolbus_common.contracts.queries.identity import Bearer
from toolbus_common.nats.kv_bucket import Bucket, Change

SWEEP_AT = 1024
BELOW = "~"  # precedes the part of a grant's id that token exchange appends


def is_person(name: str) -> bool:
    """Return whether a `Bearer.name` belongs to a signed-in user. Key names contain no colon."""
    return ":" in name


class TokenCache:
    """Cache of access tokens: the holder (`Bearer`) of each token by the token's hash."""

    def __init__(self) -> None:
        self._held: dict[str, Bearer] = {}
        self._users: dict[str, str] = {}
        self._sweep_at = SWEEP_AT
        self._bucket: Bucket | None = None
        self.on_gone: Callable[[str], None] = lambda _: None  # called with its `Bearer.name`

    def open(self, bucket: Bucket) -> None:
        """Use this bucket to look up tokens that are not in the cache."""
        self._bucket = bucket

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket. The change None has no effect."""
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
            # A newer version of Toolbus wrote the entry in an unknown form.
            self._held.pop(change.key, None)

    def take(self, token_hash: str, bearer: Bearer) -> None:
        """Add a token with its holder. Expired tokens are removed when the cache has doubled."""
        self._held[token_hash] = bearer
        self._users[bearer.name] = bearer.user
        if len(self._held) >= self._sweep_at:
            now = time()
            self._held = {name: each for name, each in self._held.items() if each.ends > now}
            self._users = {each.name: each.user for each in self._held.values()}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._held))

    def find(self, token_hash: str, now: float) -> Bearer | None:
        """Return the holder of a token that is valid at `now`; None without such a token."""
        found = self._held.get(token_hash)
        return found if found is not None and now < found.ends else None

    def known(self, token_hash: str) -> Bearer | None:
        """Return the holder of a token that is valid now; None without such a token."""
        return self.find(token_hash, time())

    def user_of(self, name: str) -> str:
        """Return the user of a `Bearer.name`. Raises `KeyError`."""
        return self._users[name]

    def of_grant(self, grant: str) -> list[str]:
        """Return the hashes of all tokens of a grant, and of grants exchanged from this grant."""
        below = f"{grant}{BELOW}"
        return [
            name
            for name, bearer in self._held.items()
            if bearer.grant == grant or bearer.grant.startswith(below)
        ]

    async def learn(self, token_hash: str) -> Bearer | None:
        """Read an uncached token from the bucket, and return its holder; None if unknown."""
        entry = await self._bucket.get(token_hash) if self._bucket is not None else None
        if entry is not None:
            self.apply_change(entry)
        return self.find(token_hash, time())
