"""Accounts that are kept here: a password hashed with Argon2id, and if wanted a second factor."""

import asyncio
import hmac
from dataclasses import dataclass, field
from time import time

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from toolbus_common.config import LOCAL
from toolbus_oauth.storage.records import Account, Guesses, Person, Used
from toolbus_oauth.storage.store import Store

STEP_SECONDS = 30
DIGITS = 6
LONGEST_PASSWORD = 1024
MOST_FAILURES, FAILURE_SECONDS = 8, 300.0
TURNS = 16  # tries to note one guess where others are noted meanwhile
MOST_WAITING = 32
MOST_AT_ONCE = 2  # each takes 64 MiB for a tenth of a second
# What an unknown name costs as much as a known one to refuse: of no password at all.
NOBODY = (
    "$argon2id$v=19$m=65536,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


class NotSignedInError(Exception):
    """Why somebody could not sign in, told without saying which part was wrong.

    `known` is for the record alone: whether there is an account of that name.
    """

    def __init__(self, sentence: str, *, known: bool = False) -> None:
        super().__init__(sentence)
        self.known = known


@dataclass(slots=True)
class Accounts:
    """Who may sign in here."""

    store: Store
    brief: Store
    _waiting: int = 0
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE))

    async def signed_in(self, name: str, password: str, code: str) -> Person:
        """Whose name, password and code these are. Raises `NotSignedInError`."""
        await self._guessed(name)
        if self._waiting >= MOST_WAITING:
            raise NotSignedInError("Too many sign in at once; try again.")
        self._waiting += 1
        try:
            account = await self.store.get(Account, name)
            phc = account.password if account is not None else NOBODY
            async with self._turns:
                await self._note_guess(name)  # of those that came together only so many are judged
                right = await asyncio.to_thread(is_right, phc, password[:LONGEST_PASSWORD])
        finally:
            self._waiting -= 1
        if account is None or account.disabled or not right or not await self._fits(account, code):
            sentence = "Name, password or code are not right."
            raise NotSignedInError(sentence, known=account is not None)
        await self.brief.drop(Guesses, name)
        return person_of(account)

    async def stands(self, person: Person) -> bool:
        """Whether somebody's account is still as it was when they signed in."""
        if person.issuer != LOCAL:
            return True
        account = await self.store.get(Account, person.user)
        return account is not None and not account.disabled and account.epoch == person.epoch

    async def _guessed(self, name: str) -> tuple[tuple[float, ...], int]:
        """When a name was tried in vain of late, at any replica, and the revision of that.

        Raises `NotSignedInError`: tried too often, it must wait, whoever tries.
        """
        kept, revision = await self.brief.seen(Guesses, name)
        since = time() - FAILURE_SECONDS
        tried = tuple(at for at in (kept.at if kept is not None else ()) if at > since)
        if len(tried) >= MOST_FAILURES:
            raise NotSignedInError("This name was tried too often; wait five minutes.")
        return tried, revision

    async def _note_guess(self, name: str) -> None:
        """Count a guess as wrong before it is judged. Raises `NotSignedInError`."""
        for _ in range(TURNS):
            tried, revision = await self._guessed(name)
            if await self.brief.swap(name, Guesses((*tried, time())), revision):
                return
        raise NotSignedInError("This name is tried by several at once; try again.")

    async def _fits(self, account: Account, code: str) -> bool:
        """Whether a code is the account's now, and was not used before."""
        if not account.totp:
            return True
        step = step_of(account.totp, code, time())
        if step is None:
            return False
        return await self.brief.swap(f"totp {account.name} {step}", Used(), 0)


def is_right(phc: str, password: str) -> bool:
    """Whether this is the password of an Argon2id string."""
    try:
        Argon2id.verify_phc_encoded(password.encode(), phc)
    except (InvalidKey, ValueError):
        return False
    return True


def step_of(secret: bytes, code: str, now: float) -> int | None:
    """The step of time a code belongs to: this one, or one beside it."""
    told = code.replace(" ", "").encode()
    sha1 = SHA1()  # noqa: S303 - inside an HMAC, and what every authenticator speaks
    factor = TOTP(secret, DIGITS, sha1, STEP_SECONDS)
    for step in (0, -1, 1):
        at = now + step * STEP_SECONDS
        if hmac.compare_digest(factor.generate(at), told):
            return int(at / STEP_SECONDS)
    return None


def person_of(account: Account) -> Person:
    """The holder of an account, as rules see them."""
    return Person(LOCAL, account.name, {**account.claims, "sub": account.name}, account.epoch)
