"""The declared configuration as a room sees it now: watched, and replaced as a whole."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from pydantic import ValidationError

from toolbus_common.builtin import BUILT_IN
from toolbus_common.bus import Change
from toolbus_common.declared import Declaration, Key, Patterns
from toolbus_common.lineage import Lineage, exposed, lineage_of

log = logging.getLogger(__name__)

DECLARATION = "declaration"  # the whole configuration file, as one entry
KEY_PREFIX = "key."  # keys made, changed or revoked one by one; they win over declared ones


def proof_of(secret: str) -> str:
    """What travels on the bus instead of a secret."""
    return sha256(secret.encode()).hexdigest()


def hash_of(proof: str) -> str:
    """What is stored instead of a proof."""
    return sha256(proof.encode()).hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """One consistent view. `version` grows with every change."""

    version: int = 0
    declaration: Declaration = field(default_factory=Declaration)
    keys: dict[str, Key] = field(default_factory=dict)
    by_hash: dict[str, str] = field(default_factory=dict)  # secret_hash -> key name
    _by_proof: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    _lineages: dict[str, Lineage] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def exposed(self) -> tuple[Patterns, ...]:
        """What servers let anybody use, as bounds."""
        return exposed(self.declaration)

    def serves(self, server: str) -> bool:
        """Whether there is a server of that name: a declared one, or Toolbus itself."""
        return server in self.declaration.servers or server == BUILT_IN

    def lineage(self, name: str) -> Lineage:
        """A known key with everything above it; worked out when first asked for."""
        found = self._lineages.get(name)
        if found is None:
            found = lineage_of(name, self.keys[name], self.declaration, self.exposed)
            self._lineages[name] = found
        return found

    def key_for(self, proof: str, now: float) -> tuple[str, Key] | None:
        """The live key a proof belongs to: not revoked, and nothing above it has expired."""
        name = self._by_proof.get(proof)
        if name is None:
            name = self.by_hash.get(hash_of(proof))
            if name is None:
                return None
            # Only proofs that fit are kept: no more entries than there are keys.
            self._by_proof[proof] = name
        key = self.keys[name]
        return None if key.revoked or now >= self.lineage(name).ends else (name, key)


class Directory:
    """Keeps the newest snapshot from the configuration bucket's changes."""

    def __init__(self) -> None:
        self.now = Snapshot()
        self._declaration = Declaration()
        self._own_keys: dict[str, Key] = {}
        self._complete = False
        self._version = 0
        self.on_change: list[Callable[[Snapshot], None]] = []

    def hear(self, change: Change | None) -> None:
        """Take one change of the bucket; None means the first picture is complete."""
        if change is None:
            self._complete = True
        else:
            self._take(change)
        if self._complete:
            self._renew()

    def _take(self, change: Change) -> None:
        self._version = max(self._version, change.revision)
        try:
            if change.key == DECLARATION:
                self._declaration = (
                    Declaration.model_validate_json(change.value) if change.value else Declaration()
                )
            elif change.key.startswith(KEY_PREFIX):
                self._take_key(change.key.removeprefix(KEY_PREFIX), change.value)
        except ValidationError as error:
            # A newer Toolbus may have written it: keep what we know rather than half of it.
            log.error(  # noqa: TRY400
                "config.unreadable", extra={"key": change.key, "faults": error.error_count()}
            )

    def _take_key(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._own_keys.pop(name, None)
        else:
            self._own_keys[name] = Key.model_validate_json(value)

    def _renew(self) -> None:
        keys = {**self._declaration.keys, **self._own_keys}
        by_hash = {key.secret_hash: name for name, key in keys.items() if key.secret_hash}
        self.now = Snapshot(self._version, self._declaration, keys, by_hash)
        for listener in self.on_change:
            listener(self.now)
