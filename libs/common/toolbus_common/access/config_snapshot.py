"""The configuration as a service sees it now: watched, and given in views that stay whole."""

import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Self

from pydantic import ValidationError

from toolbus_common.access.administrators import Administrator, of_key, of_person
from toolbus_common.access.anonymous import ANONYMOUS, is_anonymous
from toolbus_common.access.key_index import Keyring
from toolbus_common.access.oauth_scopes import TOOLS, administers
from toolbus_common.access.principal import Principal, Principals
from toolbus_common.access.token_cache import Bearers, is_person
from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.contracts.queries.identity import Bearer
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import ADMIN_PREFIX, DECLARATION, KEY_PREFIX

log = logging.getLogger(__name__)

Opened = Callable[[Configuration], Configuration]
NO_KEYS: Mapping[str, Key] = MappingProxyType({})


def key_digest_of(secret: str) -> str:
    """What travels on the bus instead of a secret."""
    return sha256(secret.encode()).hexdigest()


def hash_of(key_digest: str) -> str:
    """What is stored instead of a proof."""
    return sha256(key_digest.encode()).hexdigest()


class ConfigSnapshot:
    """One consistent view, which never changes. `version` grows with every change.

    Access tokens come and go beside it: `bearers` knows who holds them now.
    """

    __slots__ = ("_by_key_digest", "_principals", "bearers", "declaration", "keys", "version")

    def __init__(
        self,
        version: int,
        declaration: Configuration,
        keys: Keyring,
        principals: Principals,
        bearers: Bearers,
    ) -> None:
        self.version = version
        self.declaration = declaration
        self.keys = keys
        self.bearers = bearers
        self._principals = principals
        self._by_key_digest: dict[str, Principal] = {}

    @classmethod
    def of(
        cls,
        declaration: Configuration,
        own: Mapping[str, Key] = NO_KEYS,
        version: int = 1,
        bearers: Bearers | None = None,
    ) -> Self:
        """The view of a declaration and keys made one by one, which win over declared ones."""
        nobody = {ANONYMOUS: declaration.anonymous.key} if declaration.anonymous.on else {}
        keys = Keyring().changed({**declaration.keys, **own, **nobody})
        return cls(version, declaration, keys, Principals(declaration), bearers or Bearers())

    def after(self, version: int, keys: Mapping[str, Key | None]) -> "ConfigSnapshot":
        """The view once these keys have changed; what is known of the others is kept."""
        self._principals.forget(keys)
        changed = self.keys.changed(keys)
        return ConfigSnapshot(version, self.declaration, changed, self._principals, self.bearers)

    def serves(self, server: str) -> bool:
        """Whether there is a server of that name: a declared one, or Toolbus itself."""
        return server in self.declaration.servers or server == BUILT_IN

    def principal(self, name: str) -> Principal:
        """A known key, or somebody who signed in, with everything above it."""
        key = self.keys.get(name)
        if key is not None:
            return self._principals.of(name, key)
        return self._principals.person(name, self.bearers.user_of(name))

    def principal_for(self, key_digest: str, now: float) -> Principal | None:
        """The live key a proof belongs to: not revoked, and nothing above it has expired."""
        found = self._by_key_digest.get(key_digest)
        if found is None:
            if is_anonymous(key_digest):
                return self.principal_of(ANONYMOUS, now)
            secret_hash = hash_of(key_digest)
            name = self.keys.owner(secret_hash)
            if name is None:
                return self._principal_held(secret_hash, now)
            # Only proofs that fit are kept: no more entries than there are keys.
            found = self._by_key_digest[key_digest] = self.principal(name)
        return _live(found, now)

    def actors(self, name: str, key_digest: str) -> tuple[str, ...]:
        """Who acts in its holder's name with an exchanged token; whoever has a key acts alone."""
        if not is_person(name):
            return ()
        bearer = self.bearers.known(hash_of(key_digest))
        return bearer.actors if bearer is not None else ()

    def principal_of(self, name: str, now: float) -> Principal | None:
        """The live key of a name; None also where there is none."""
        try:
            return _live(self.principal(name), now)
        except KeyError:
            return None

    def _principal_held(self, token_hash: str, now: float) -> Principal | None:
        """Of who holds an access token for tools, as far as the token goes."""
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
    """The newest snapshot, made of the configuration bucket's changes.

    Changes are taken in when somebody looks at `now`: those that came together cost one new
    snapshot, and nobody sees one that is older than what was heard. `opened` opens the secrets
    of a declaration that were sealed for this service.
    """

    def __init__(self, opened: Opened = lambda declaration: declaration) -> None:
        self._opened = opened
        self.bearers = Bearers()
        self._now = ConfigSnapshot.of(Configuration(), version=0, bearers=self.bearers)
        self._declaration = self._now.declaration
        self._own_keys: dict[str, Key] = {}
        self._own_admins: dict[str, Admin] = {}
        self._changed: set[str] = set()
        self._version = 0
        self._complete = False
        self._stale = False
        self.on_declared: list[Callable[[], None]] = []  # the declaration is another one
        self.on_key: list[Callable[[str], None]] = []  # one key changed, of this name

    @property
    def now(self) -> ConfigSnapshot:
        """What is known now; before the first picture is complete, nothing."""
        if self._stale and self._complete:
            self._renew()
        return self._now

    def administrator(self, key_digest: str, now: float) -> Administrator | None:
        """Who holds the live admin key a proof belongs to (there are few), or such a token."""
        wanted = hash_of(key_digest)
        for name, admin in {**self._declaration.admins, **self._own_admins}.items():
            if admin.secret_hash == wanted and admin.live(now):
                return of_key(name, admin)
        bearer = self.bearers.find(wanted, now)
        return self._appointed(bearer, now) if bearer is not None else None

    def _appointed(self, bearer: Bearer, now: float) -> Administrator | None:
        """Somebody who signed in, if their rule gives them a role and nothing of theirs ended."""
        snapshot = self.now
        access = snapshot.declaration.access.get(bearer.access)
        stands = administers(bearer.scope) and snapshot.principal_of(bearer.name, now) is not None
        return of_person(bearer, access.role) if stands and access and access.role else None

    def hear(self, change: Change | None) -> None:
        """Take one change of the bucket; None means the first picture is complete."""
        self._stale = True
        if change is None:
            self._complete = True
            self._tell_declared()
        else:
            self._take(change)

    def _take(self, change: Change) -> None:
        self._version = max(self._version, change.revision)
        try:
            if change.key == DECLARATION:
                self._take_declaration(change.value)
            elif change.key.startswith(KEY_PREFIX):
                self._take_key(change.key.removeprefix(KEY_PREFIX), change.value)
            elif change.key.startswith(ADMIN_PREFIX):
                self._take_admin(change.key.removeprefix(ADMIN_PREFIX), change.value)
        except ValidationError as error:
            # A newer Toolbus may have written it: keep what we know rather than half of it.
            log.error(  # noqa: TRY400
                "config.unreadable", extra={"key": change.key, "faults": error.error_count()}
            )

    def _take_declaration(self, value: bytes | None) -> None:
        whole = Configuration.model_validate_json(value) if value else Configuration()
        self._declaration = self._opened(whole)
        self._tell_declared()

    def _take_key(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._own_keys.pop(name, None)
        else:
            self._own_keys[name] = Key.model_validate_json(value)
        self._changed.add(name)
        for listener in self.on_key:
            listener(name)

    def _take_admin(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._own_admins.pop(name, None)
        else:
            self._own_admins[name] = Admin.model_validate_json(value)

    def _tell_declared(self) -> None:
        for listener in self.on_declared:
            listener()

    def _renew(self) -> None:
        if self._declaration is not self._now.declaration:
            known = (self._own_keys, self._version, self.bearers)
            self._now = ConfigSnapshot.of(self._declaration, *known)
        else:
            own, declared = self._own_keys, self._declaration.keys
            changed = {name: own.get(name, declared.get(name)) for name in self._changed}
            self._now = self._now.after(self._version, changed)
        self._changed.clear()
        self._stale = False
