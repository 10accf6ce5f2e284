"""What operators wish: accounts, clients, grants. Secrets are told once, when they are made."""

import secrets
from base64 import b32encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec
from msgspec.structs import replace

from toolbus_common.contracts import IdentityReply, IdentityRequest
from toolbus_common.errors import ConflictError, InvalidError, UnknownEntryError
from toolbus_oauth.clients.registry import (
    AUTHORIZATION_CODE,
    CREDENTIALS,
    DEVICE,
    EXCHANGE,
    JWT_BEARER,
    REFRESH,
    described,
    with_secret,
)
from toolbus_oauth.server.grants import Grants
from toolbus_oauth.storage.records import Account, Client, Grant
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.admin import Counter
from toolbus_oauth.web.errors import OAuthError

TOTP_BYTES = 20
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Office:
    """Does what they wish."""

    store: Store
    registered: Store
    grants: Grants
    connections: Counter

    async def answer(self, asked: IdentityRequest) -> IdentityReply:
        """One wish. Raises `InvalidError`, `ConflictError` or `UnknownEntryError`."""
        wishes: dict[str, Callable[[IdentityRequest, Row], Awaitable[list[Row]]]] = {
            "accounts": self._accounts,
            "add_account": self._add_account,
            "change_account": self._change_account,
            "remove_account": self._remove_account,
            "clients": self._clients,
            "add_client": self._add_client,
            "remove_client": self._remove_client,
            "grants": self._grants,
            "end_grant": self._end_grant,
            "connections": self.connections.rows,
            "connect": self.connections.begin,
            "end_connection": self.connections.end,
        }
        if asked.wish not in wishes:
            raise InvalidError("This oauth service does not know that wish; is it an older one?")
        about = msgspec.json.decode(asked.about, type=dict[str, Any])
        return IdentityReply(rows=tuple(await wishes[asked.wish](asked, about)))

    async def _accounts(self, asked: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        found = await self.store.every(Account)
        return [_account_row(each) for each in sorted(found, key=lambda each: each.name)]

    async def _add_account(self, asked: IdentityRequest, about: Row) -> list[Row]:
        secret = secrets.token_bytes(TOTP_BYTES) if about.get("totp") else b""
        claims = {"groups": list(about.get("groups", ())), "email": str(about.get("email", ""))}
        # Nothing of an earlier account of that name fits this one.
        epoch = int(time() * 1000)
        account = Account(
            asked.name, str(about["password"]), secret, claims, epoch=epoch, made=time()
        )
        if not await self.store.swap(asked.name, account, 0):
            raise ConflictError(f"There is an account '{asked.name}' already.")
        return [{**_account_row(account), **_totp(secret)}]

    async def _change_account(self, asked: IdentityRequest, about: Row) -> list[Row]:
        """Another password, other groups, or nobody any more: whatever was granted ends."""
        old, revision = await self.store.seen(Account, asked.name)
        if old is None:
            raise UnknownEntryError(f"There is no account '{asked.name}'.")
        changes: Row = {"epoch": old.epoch + 1}
        changes |= {name: about[name] for name in ("password", "disabled") if name in about}
        if "groups" in about:
            changes["claims"] = {**old.claims, "groups": list(about["groups"])}
        changed = replace(old, **changes)
        if not await self.store.swap(asked.name, changed, revision):
            raise ConflictError(f"The account '{asked.name}' was changed meanwhile; try again.")
        await self._end_all(
            lambda grant: _is_of(grant, asked.name), "the account changed", asked.by
        )
        return [_account_row(changed)]

    async def _remove_account(self, asked: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        if await self.store.get(Account, asked.name) is None:
            raise UnknownEntryError(f"There is no account '{asked.name}'.")
        await self.store.drop(Account, asked.name)
        await self._end_all(lambda grant: _is_of(grant, asked.name), "the account ended", asked.by)
        await self.connections.end_of(asked.name, asked.by)
        return []

    async def _clients(self, asked: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        found = [*await self.store.every(Client), *await self.registered.every(Client)]
        return [_client_row(each) for each in sorted(found, key=lambda each: each.made)]

    async def _add_client(self, asked: IdentityRequest, about: Row) -> list[Row]:
        """A client an operator vouches for: with redirects or codes for people, or for itself."""
        kind, grants = _ways(about)
        told = {**about, "client_name": asked.name, "grant_types": [kind]}
        exchange = tuple(about.get("exchange", ()))
        try:
            client = described(told, about.get("client_id") or secrets.token_hex(16))
        except OAuthError as error:
            raise InvalidError(error.sentence) from error
        secret = secrets.token_urlsafe(32) if client.method.startswith("client_secret") else ""
        if exchange and (kind != CREDENTIALS or client.method == "none"):
            raise InvalidError("Only a machine that can prove who it is may exchange tokens.")
        grants += (EXCHANGE,) if exchange else ()
        made = replace(client, registered=False, grants=grants, exchange=exchange)
        made = with_secret(made, secret)
        await self._keep(made)
        return [{**_client_row(made), **({"secret": secret} if secret else {})}]

    async def _keep(self, made: Client) -> None:
        await self._refuse_namesake(made)
        if not await self.store.swap(made.id, made, 0):
            raise ConflictError("There is a client with this id already.")
        try:
            await self._refuse_namesake(made)  # whom somebody else made in the same instant
        except ConflictError:
            await self.store.drop(Client, made.id)
            raise

    async def _refuse_namesake(self, made: Client) -> None:
        """A machine is known by its name: two of one name would be one, to rules and in events."""
        if CREDENTIALS not in made.grants:
            return
        for each in await self.store.every(Client):
            if each.name == made.name and each.id != made.id and CREDENTIALS in each.grants:
                raise ConflictError(
                    f"There is a machine called '{made.name}' already ({each.id}); give this one "
                    "another name, or remove that one first."
                )

    async def _remove_client(self, asked: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        for store in (self.store, self.registered):
            if await store.get(Client, asked.name) is not None:
                await store.drop(Client, asked.name)
                break
        else:
            raise UnknownEntryError(f"There is no client '{asked.name}'.")
        await self._end_all(
            lambda grant: grant.client_id == asked.name, "the client ended", asked.by
        )
        return []

    async def _grants(self, asked: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        found = [
            each
            for each in await self.store.every(Grant)
            if each.ends > time()
            and (not each.above or await self.grants.standing(each.id) is not None)
        ]
        return [_grant_row(each) for each in sorted(found, key=lambda each: each.made)]

    async def _end_grant(self, asked: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        if await self.grants.end(asked.name, "an operator ended it", asked.by) is None:
            raise UnknownEntryError(f"There is no grant '{asked.name}'.")
        return []

    async def _end_all(self, concerned: Callable[[Grant], bool], reason: str, by: str) -> None:
        for grant in await self.store.every(Grant):
            if concerned(grant):
                await self.grants.end(grant.id, reason, by)


def _ways(about: Row) -> tuple[str, tuple[str, ...]]:
    """What a client is told to be for, and all it may ask by."""
    if about.get("redirect_uris"):
        return AUTHORIZATION_CODE, (AUTHORIZATION_CODE, REFRESH)
    if about.get("token_endpoint_auth_method") == "none":  # it shows people a code
        return DEVICE, (DEVICE, REFRESH)
    return CREDENTIALS, (CREDENTIALS, JWT_BEARER)


def _is_of(grant: Grant, account: str) -> bool:
    return grant.person.issuer == "local" and grant.person.user == account


def _totp(secret: bytes) -> Row:
    return {"totp_secret": b32encode(secret).decode()} if secret else {}


def _account_row(account: Account) -> Row:
    return {
        "name": account.name,
        "state": "disabled" if account.disabled else "live",
        "second_factor": bool(account.totp),
        "groups": account.claims.get("groups", []),
    }


def _client_row(client: Client) -> Row:
    return {
        "id": client.id,
        "name": client.name,
        "from": "itself" if client.registered else "operator",
        "method": client.method,
        "redirects": list(client.redirects),
        "exchanges_for": list(client.exchange),
        "dpop": client.bound,
    }


def _grant_row(grant: Grant) -> Row:
    return {
        "id": grant.id,
        "user": grant.person.user,
        "issuer": grant.person.issuer,
        "client": grant.client or grant.client_id,
        "actors": list(grant.actors),
        "resource": grant.resource,
        "scope": grant.scope,
        "made": int(grant.made),
        "ends": int(grant.ends),
    }
