"""Local accounts: Argon2id passwords and an optional second factor (TOTP)."""

import asyncio
import hmac
from dataclasses import dataclass, field
from time import time

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from toolbus_common.config import LOCAL
from toolbus_oauth.storage.records import Account, Person, SignInAttempts, Used
from toolbus_oauth.storage.store import Store

STEP_SECONDS = 30
DIGITS = 6
LONGEST_PASSWORD = 1024
MAX_FAILURES, FAILURE_SECONDS = 8, 300.0
ATTEMPTS = 16  # attempts to record one guess under concurrent writes
MAX_WAITING = 32
MAX_HASHES = 2  # each hash takes 64 MiB for about 100 ms
# Verified for an unknown name, so that the reply takes as long as for a known name. It matches no
# password.
DUMMY_HASH = (
    "$argon2id$v=19$m=65536,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


class SignInError(Exception):
    """Sign-in failed; the message does not reveal which part was wrong.

    `known` is true if an account with that name exists. It is used only in the audit log.
    """

    def __init__(self, message: str, *, known: bool = False) -> None:
        super().__init__(message)
        self.known = known


@dataclass(slots=True)
class Accounts:
    """Authentication of people by local accounts."""

    store: Store
    brief: Store
    _waiting: int = 0
    _hash_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_HASHES))

    async def signed_in(self, name: str, password: str, code: str) -> Person:
        """Return the person with this name, password and code. Raises `SignInError`."""
        await self._recent_guesses(name)
        if self._waiting >= MAX_WAITING:
            raise SignInError("Too many people are signing in at once; try again shortly.")
        self._waiting += 1
        try:
            account = await self.store.get(Account, name)
            phc = account.password if account is not None else DUMMY_HASH
            async with self._hash_slots:
                # Before verifying, so that concurrent guesses are limited.
                await self._record_guess(name)
                right = await asyncio.to_thread(is_password, phc, password[:LONGEST_PASSWORD])
        finally:
            self._waiting -= 1
        if (
            account is None
            or account.disabled
            or not right
            or not await self._is_valid_code(account, code)
        ):
            message = "The name, password or code is wrong."
            raise SignInError(message, known=account is not None)
        await self.brief.drop(SignInAttempts, name)
        return person_of(account)

    async def is_current(self, person: Person) -> bool:
        """Return whether a local account is enabled and unchanged since the person's sign-in.

        People of external issuers have no account here, so the result is True for them.
        """
        if person.issuer != LOCAL:
            return True
        account = await self.store.get(Account, person.user)
        return account is not None and not account.disabled and account.epoch == person.epoch

    async def _recent_guesses(self, name: str) -> tuple[tuple[float, ...], int]:
        """Return the times of recent guesses for a name, and the revision of their record.

        Guesses of all replicas are counted. Raises `SignInError` after too many guesses; every
        sign-in with that name must then wait.
        """
        guesses, revision = await self.brief.get_with_revision(SignInAttempts, name)
        since = time() - FAILURE_SECONDS
        tried = tuple(at for at in (guesses.at if guesses is not None else ()) if at > since)
        if len(tried) >= MAX_FAILURES:
            raise SignInError("Too many sign-in attempts with this name; wait five minutes.")
        return tried, revision

    async def _record_guess(self, name: str) -> None:
        """Record a guess before it is verified. Raises `SignInError` after too many guesses."""
        for _ in range(ATTEMPTS):
            tried, revision = await self._recent_guesses(name)
            if await self.brief.swap(name, SignInAttempts((*tried, time())), revision):
                return
        raise SignInError("Too many concurrent sign-ins with this name; try again.")

    async def _is_valid_code(self, account: Account, code: str) -> bool:
        """Return whether a one-time code is valid now and was not used before."""
        if not account.totp:
            return True
        step = time_step(account.totp, code, time())
        if step is None:
            return False
        return await self.brief.swap(f"totp {account.name} {step}", Used(), 0)


def is_password(phc: str, password: str) -> bool:
    """Return whether a password matches an Argon2id PHC string."""
    try:
        Argon2id.verify_phc_encoded(password.encode(), phc)
    except (InvalidKey, ValueError):
        return False
    return True


def time_step(secret: bytes, code: str, now: float) -> int | None:
    """Return the time step (previous, current or next) of a code; None if the code is wrong."""
    entered = code.replace(" ", "").encode()
    sha1 = SHA1()  # noqa: S303 - inside an HMAC, as authenticator apps expect
    factor = TOTP(secret, DIGITS, sha1, STEP_SECONDS)
    for step in (0, -1, 1):
        at = now + step * STEP_SECONDS
        if hmac.compare_digest(factor.generate(at), entered):
            return int(at / STEP_SECONDS)
    return None


def person_of(account: Account) -> Person:
    """Return the person of an account, with the claims that access rules check."""
    return Person(LOCAL, account.name, {**account.claims, "sub": account.name}, account.epoch)
