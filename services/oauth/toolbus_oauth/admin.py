"""Administration of accounts, clients and grants; a secret is returned only on creation."""

import secrets
from base64 import b32encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec
from msgspec.structs import replace

from toolbus_common.access.oauth_scopes import CONSOLE_CLIENT
from toolbus_common.contracts import IdentityReply, IdentityRequest
from toolbus_common.errors import ConflictError, InvalidError, UnknownEntryError
from toolbus_oauth.accounts.sign_in_links import SignInLinks
from toolbus_oauth.clients.registry import (
    AUTHORIZATION_CODE,
    CREDENTIALS,
    DEVICE,
    EXCHANGE,
    JWT_BEARER,
    REFRESH,
    parse_metadata,
    with_secret,
)
from toolbus_oauth.server.grants import Grants
from toolbus_oauth.storage.records import Account, Client, Grant
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.admin import ConnectionsAdmin
from toolbus_oauth.web.errors import OAuthError

TOTP_BYTES = 20
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class IdentityAdmin:
    """Handler of administration requests from operators."""

    store: Store
    registered: Store
    grants: Grants
    connections: ConnectionsAdmin
    links: SignInLinks

    async def answer(self, request: IdentityRequest) -> IdentityReply:
        """Handle one request. Raises `InvalidError`, `ConflictError` or `UnknownEntryError`."""
        handlers: dict[str, Callable[[IdentityRequest, Row], Awaitable[list[Row]]]] = {
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
            "sign_in_link": self._sign_in_link,
        }
        if request.action not in handlers:
            raise InvalidError(
                f"This oauth service does not support '{request.action}'; upgrade the service."
            )
        about = msgspec.json.decode(request.about, type=dict[str, Any])
        return IdentityReply(rows=tuple(await handlers[request.action](request, about)))

    async def _accounts(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        found = await self.store.every(Account)
        return [_account_row(each) for each in sorted(found, key=lambda each: each.name)]

    async def _add_account(self, request: IdentityRequest, about: Row) -> list[Row]:
        secret = secrets.token_bytes(TOTP_BYTES) if about.get("totp") else b""
        claims = {"groups": list(about.get("groups", ())), "email": str(about.get("email", ""))}
        # A new epoch invalidates sessions and grants of an earlier account with this name.
        epoch = int(time() * 1000)
        account = Account(
            request.name, str(about["password"]), secret, claims, epoch=epoch, made=time()
        )
        if not await self.store.swap(request.name, account, 0):
            raise ConflictError(f"An account '{request.name}' already exists; choose another name.")
        return [{**_account_row(account), **_totp(secret)}]

    async def _change_account(self, request: IdentityRequest, about: Row) -> list[Row]:
        """Change password, groups or state of an account, and end all its grants."""
        old, revision = await self.store.get_with_revision(Account, request.name)
        if old is None:
            raise UnknownEntryError(
                f"There is no account '{request.name}'; 'toolbus accounts list' shows all."
            )
        changes: Row = {"epoch": old.epoch + 1}
        changes |= {name: about[name] for name in ("password", "disabled") if name in about}
        if "groups" in about:
            changes["claims"] = {**old.claims, "groups": list(about["groups"])}
        changed = replace(old, **changes)
        if not await self.store.swap(request.name, changed, revision):
            raise ConflictError(f"The account '{request.name}' was changed concurrently; retry.")
        await self._end_all(
            lambda grant: _is_of(grant, request.name), "the account was changed", request.by
        )
        return [_account_row(changed)]

    async def _remove_account(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        if await self.store.get(Account, request.name) is None:
            raise UnknownEntryError(
                f"There is no account '{request.name}'; 'toolbus accounts list' shows all."
            )
        await self.store.drop(Account, request.name)
        await self._end_all(
            lambda grant: _is_of(grant, request.name), "the account was removed", request.by
        )
        await self.connections.end_of(request.name, request.by)
        return []

    async def _clients(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        found = [*await self.store.every(Client), *await self.registered.every(Client)]
        return [_client_row(each) for each in sorted(found, key=lambda each: each.made)]

    async def _add_client(self, request: IdentityRequest, about: Row) -> list[Row]:
        """Add a client with redirect URIs, a device client, or a machine that acts for itself."""
        if about.get("client_id") == CONSOLE_CLIENT:
            raise ConflictError(
                f"The id '{CONSOLE_CLIENT}' is the console's; choose another with --id."
            )
        grant_type, grants = _grant_types(about)
        metadata = {**about, "client_name": request.name, "grant_types": [grant_type]}
        exchange = tuple(about.get("exchange", ()))
        try:
            client = parse_metadata(metadata, about.get("client_id") or secrets.token_hex(16))
        except OAuthError as error:
            raise InvalidError(error.message) from error
        secret = secrets.token_urlsafe(32) if client.method.startswith("client_secret") else ""
        if exchange and (grant_type != CREDENTIALS or client.method == "none"):
            raise InvalidError(
                "Only a machine client with a secret or key may exchange tokens; omit --redirect "
                "and --public."
            )
        grants += (EXCHANGE,) if exchange else ()
        made = replace(client, registered=False, grants=grants, exchange=exchange)
        made = with_secret(made, secret)
        await self._store_client(made)
        return [{**_client_row(made), **({"secret": secret} if secret else {})}]

    async def _store_client(self, made: Client) -> None:
        await self._reject_namesake(made)
        if not await self.store.swap(made.id, made, 0):
            raise ConflictError(
                f"A client with the id '{made.id}' already exists; choose another with --id."
            )
        try:
            await self._reject_namesake(made)  # created concurrently
        except ConflictError:
            await self.store.drop(Client, made.id)
            raise

    async def _reject_namesake(self, made: Client) -> None:
        """Reject a second machine client of the same name: rules and events use the name."""
        if CREDENTIALS not in made.grants:
            return
        for each in await self.store.every(Client):
            if each.name == made.name and each.id != made.id and CREDENTIALS in each.grants:
                raise ConflictError(
                    f"A machine client '{made.name}' already exists ({each.id}); choose another "
                    "name, or remove that client first."
                )

    async def _remove_client(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        for store in (self.store, self.registered):
            if await store.get(Client, request.name) is not None:
                await store.drop(Client, request.name)
                break
        else:
            raise UnknownEntryError(
                f"There is no client '{request.name}'; 'toolbus clients list' shows all."
            )
        await self._end_all(
            lambda grant: grant.client_id == request.name, "the client was removed", request.by
        )
        return []

    async def _grants(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        found = [
            each
            for each in await self.store.every(Grant)
            if each.ends > time()
            and (not each.above or await self.grants.active(each.id) is not None)
        ]
        return [_grant_row(each) for each in sorted(found, key=lambda each: each.made)]

    async def _end_grant(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        if await self.grants.end(request.name, "an operator ended it", request.by) is None:
            raise UnknownEntryError(
                f"There is no grant '{request.name}'; 'toolbus grants list' shows all."
            )
        return []

    async def _sign_in_link(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        return [{"code": await self.links.create(str(about["secret"]))}]

    async def _end_all(self, concerned: Callable[[Grant], bool], reason: str, by: str) -> None:
        for grant in await self.store.every(Grant):
            if concerned(grant):
                await self.grants.end(grant.id, reason, by)


def _grant_types(about: Row) -> tuple[str, tuple[str, ...]]:
    """Return the main grant type of a new client, and all its grant types."""
    if about.get("redirect_uris"):
        return AUTHORIZATION_CODE, (AUTHORIZATION_CODE, REFRESH)
    if about.get("token_endpoint_auth_method") == "none":  # a device, which shows a user code
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
