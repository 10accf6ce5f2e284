"""The current configuration of a process: updated from the bucket, read as immutable snapshots."""

import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from time import time
from types import MappingProxyType
from typing import Self

from toolbus_common.access.administrators import Administrator, of_key, of_person
from toolbus_common.access.anonymous import ANONYMOUS, is_anonymous
from toolbus_common.access.key_index import KeyIndex
from toolbus_common.access.oauth_scopes import TOOLS, administers
from toolbus_common.access.principal import Principal, Principals
from toolbus_common.access.token_cache import TokenCache, is_person
from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.config.stored import read_entry
from toolbus_common.errors import InvalidError, UnauthorizedError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import ADMIN_PREFIX, CONFIGURATION, KEY_PREFIX

log = logging.getLogger(__name__)

Opened = Callable[[Configuration], Configuration]
NO_KEYS: Mapping[str, Key] = MappingProxyType({})


def key_digest_of(secret: str) -> str:
    """Return the digest of a secret. Messages contain the digest, never the secret."""
    return sha256(secret.encode()).hexdigest()


def hash_of(key_digest: str) -> str:
    """Return the hash of a key digest. The configuration stores only this hash."""
    return sha256(key_digest.encode()).hexdigest()


class ConfigSnapshot:
    """One immutable view of the configuration. `version` increases with every change.

    Access tokens are not part of the snapshot: `bearers` always contains the current tokens.
    """

    __slots__ = ("_by_key_digest", "_principals", "bearers", "configuration", "keys", "version")

    def __init__(
        self,
        version: int,
        configuration: Configuration,
        keys: KeyIndex,
        principals: Principals,
        bearers: TokenCache,
    ) -> None:
        self.version = version
        self.configuration = configuration
        self.keys = keys
        self.bearers = bearers
        self._principals = principals
        self._by_key_digest: dict[str, Principal] = {}

    @classmethod
    def of(
        cls,
        configuration: Configuration,
        own: Mapping[str, Key] = NO_KEYS,
        version: int = 1,
        bearers: TokenCache | None = None,
    ) -> Self:
        """Build a snapshot. Individually created keys (`own`) override configured keys."""
        anonymous = {ANONYMOUS: configuration.anonymous.key} if configuration.anonymous.on else {}
        keys = KeyIndex().changed({**configuration.keys, **own, **anonymous})
        return cls(version, configuration, keys, Principals(configuration), bearers or TokenCache())

    def after(self, version: int, keys: Mapping[str, Key | None]) -> "ConfigSnapshot":
        """Return a snapshot with these keys changed.

        The new snapshot reuses the cached principals of all other keys.
        """
        self._principals.forget(keys)
        changed = self.keys.changed(keys)
        return ConfigSnapshot(version, self.configuration, changed, self._principals, self.bearers)

    def seen_with(self, configuration: Configuration, bearers: TokenCache) -> "ConfigSnapshot":
        """Return this snapshot with the decrypted configuration and tokens of one service."""
        return ConfigSnapshot(self.version, configuration, self.keys, self._principals, bearers)

    def serves(self, server: str) -> bool:
        """Return whether a server of this name is configured or built in."""
        return server in self.configuration.servers or server == BUILT_IN

    def principal(self, name: str) -> Principal:
        """Return the principal of a key or signed-in user. Raises `KeyError` if unknown."""
        key = self.keys.get(name)
        if key is not None:
            return self._principals.of(name, key)
        return self._principals.person(name, self.bearers.user_of(name))

    def principal_for(self, key_digest: str, now: float) -> Principal | None:
        """Return the principal of a key digest; None if revoked, expired or unknown."""
        found = self._by_key_digest.get(key_digest)
        if found is None:
            if is_anonymous(key_digest):
                return self.principal_of(ANONYMOUS, now)
            secret_hash = hash_of(key_digest)
            name = self.keys.owner(secret_hash)
            if name is None:
                return self._principal_held(secret_hash, now)
            # Only digests of existing keys are cached, so the cache has at most one entry per key.
            found = self._by_key_digest[key_digest] = self.principal(name)
        return _live(found, now)

    async def caller(self, key_digest: str) -> Principal:
        """Return the principal of a caller; look up a token that has not been received yet.

        Raises `UnauthorizedError` if the key or token is invalid, revoked or expired.
        """
        found = self.principal_for(key_digest, time())
        if found is None and await self.bearers.learn(hash_of(key_digest)) is not None:
            found = self.principal_for(key_digest, time())
        if found is None:
            raise UnauthorizedError("Invalid, revoked or expired API key.")
        return found

    def actors(self, name: str, key_digest: str) -> tuple[str, ...]:
        """Return the machines that act for a signed-in user by token exchange; empty for keys."""
        if not is_person(name):
            return ()
        bearer = self.bearers.known(hash_of(key_digest))
        return bearer.actors if bearer is not None else ()

    def principal_of(self, name: str, now: float) -> Principal | None:
        """Return the principal of a name; None if revoked, expired or unknown."""
        try:
            return _live(self.principal(name), now)
        except KeyError:
            return None

    def _principal_held(self, token_hash: str, now: float) -> Principal | None:
        """Return the principal of an access token for tools, restricted by the token's scope."""
        bearer = self.bearers.find(token_hash, now)
        if bearer is None or administers(bearer.scope):
            return None
        whole = self.principal_of(bearer.name, now)
        if whole is None or bearer.scope == TOOLS:
            return whole
        return self._principals.scoped(whole, bearer.scope)


def _live(principal: Principal, now: float) -> Principal | None:
    return None if principal.own.revoked or now >= principal.ends else principal


class ConfigProjection:
    """The newest snapshot, built from the changes of the configuration bucket.

    All services of a process share one projection, so that the configuration is parsed once. Its
    snapshots have no access tokens and no decrypted secrets, because these differ between services
    (`ConfigView`).

    Changes are applied when `now` is read: several changes at once cost one new snapshot, and no
    reader sees a snapshot older than the last received change.
    """

    def __init__(self) -> None:
        self._now = ConfigSnapshot.of(Configuration(), version=0)
        self._configuration = self._now.configuration
        self._own_keys: dict[str, Key] = {}
        self._own_admins: dict[str, Admin] = {}
        self._changed: set[str] = set()
        self._version = 0
        self._complete = False
        self._stale = False  # `_now` lacks received changes
        self._unreadable: dict[str, str] = {}  # by entry, why this version cannot read it
        self.on_stale: list[Callable[[], None]] = []  # earlier snapshots are outdated
        self.on_configured: list[Callable[[], None]] = []  # the configuration changed
        self.on_key: list[Callable[[str], None]] = []  # the key of this name changed

    @property
    def now(self) -> ConfigSnapshot:
        """The current snapshot; empty until the bucket has been loaded completely."""
        if self._stale:
            self._renew()
        return self._now

    @property
    def fault(self) -> str:
        """The reason why an entry cannot be read, or empty. The last valid state remains in use."""
        return next(iter(self._unreadable.values()), "")

    @property
    def admins(self) -> Mapping[str, Admin]:
        """The admin keys by name. Individually created keys override configured keys."""
        return {**self._configuration.admins, **self._own_admins}

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket.

        The change None means that the initial load is complete.
        """
        if change is None:
            self._complete = True
        if self._complete:
            self._stale = True
            for outdated in self.on_stale:
                outdated()
        if change is None:
            self._notify_configured()
        else:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        self._version = max(self._version, change.revision)
        key, value = change.key, change.value
        self._unreadable.pop(key, None)
        try:
            if key == CONFIGURATION:
                self._configuration = (
                    read_entry(Configuration, key, value) if value else Configuration()
                )
                self._notify_configured()
            elif key.startswith(KEY_PREFIX):
                name = key.removeprefix(KEY_PREFIX)
                if value is None:
                    self._own_keys.pop(name, None)
                else:
                    self._own_keys[name] = read_entry(Key, key, value)
                self._changed.add(name)
                for listener in self.on_key:
                    listener(name)
            elif key.startswith(ADMIN_PREFIX):
                name = key.removeprefix(ADMIN_PREFIX)
                if value is None:
                    self._own_admins.pop(name, None)
                else:
                    self._own_admins[name] = read_entry(Admin, key, value)
        except InvalidError as error:
            self._unreadable[key] = error.reason
            log.error("config.unreadable", extra={"key": key, "reason": error.reason})  # noqa: TRY400

    def _notify_configured(self) -> None:
        for listener in self.on_configured:
            listener()

    def _renew(self) -> None:
        if self._configuration is not self._now.configuration:
            self._now = ConfigSnapshot.of(self._configuration, self._own_keys, self._version)
        else:
            own, declared = self._own_keys, self._configuration.keys
            changed = {name: own.get(name, declared.get(name)) for name in self._changed}
            self._now = self._now.after(self._version, changed)
        self._changed.clear()
        self._stale = False


class ConfigView:
    """The configuration for one service: with the service's access tokens and decrypted secrets.

    `bearers` are the tokens that this service itself has verified. A service never trusts a token
    only because another service of the same process trusts it. `opened` decrypts the secrets that
    were encrypted for this service.
    """

    def __init__(
        self,
        projection: ConfigProjection | None = None,
        opened: Opened = lambda configuration: configuration,
    ) -> None:
        self.projection = projection or ConfigProjection()
        self.bearers = TokenCache()
        self._opened = opened
        self._seen = self.projection.now
        self._now = self._seen.seen_with(opened(self._seen.configuration), self.bearers)
        self._stale = False
        self.projection.on_stale.append(self._outdate)

    @property
    def now(self) -> ConfigSnapshot:
        """The current snapshot; empty until the bucket has been loaded completely."""
        if self._stale:
            self._renew()
        return self._now

    def administrator(self, key_digest: str, now: float) -> Administrator | None:
        """Return the administrator with this key digest; None if no valid credential matches.

        The credential is an admin key, or an access token for administration.
        """
        wanted = hash_of(key_digest)
        for name, admin in self.projection.admins.items():
            if admin.secret_hash == wanted and admin.live(now):
                return of_key(name, admin)
        bearer = self.bearers.find(wanted, now)
        if bearer is None or not administers(bearer.scope):
            return None
        snapshot = self.now
        access = snapshot.configuration.access.get(bearer.access)
        if access is None or not access.role or snapshot.principal_of(bearer.name, now) is None:
            return None
        return of_person(bearer, access.role)

    def _renew(self) -> None:
        seen, configuration = self.projection.now, self._now.configuration
        if seen.configuration is not self._seen.configuration:
            configuration = self._opened(seen.configuration)
        self._now = seen.seen_with(configuration, self.bearers)
        self._seen, self._stale = seen, False

    def _outdate(self) -> None:
        self._stale = True
