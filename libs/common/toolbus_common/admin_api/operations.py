"""Table of all operations of the administration API, for routing, authorization and docs. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from toolbus_common.admin_api import models
from toolbus_common.admin_api.roles import Right
from toolbus_common.config import KeyTerms
from toolbus_common.contracts import ApprovalsReply, ApprovalState, LedgerReply

BASE = "/api/v1"
NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}$"
PATTERN = r"^.{1,256}$"
APPROVAL = r"^[0-9a-f]{32}$"
PAGE = ("limit", "after")


@dataclass(frozen=True)
class Operation:
    """One operation. `does` names its implementation in policy, `right` the right it requires.

    With `match` it accepts If-Match; with `must_match` it requires it. `parameters` are those of
    the query string.
    """

    id: str
    does: str
    method: str
    path: str
    says: str
    answers: Any
    right: Right | None
    kind: str = ""
    wants: Any = None
    status: int = 200
    parameters: tuple[str, ...] = ()
    match: bool = False
    must_match: bool = False
    takes_yaml: bool = False
    named: str = NAME

    @cached_property
    def route(self) -> re.Pattern[str]:
        """The pattern of its path; patterns of tools may contain any character."""
        part = ".+" if self.named == PATTERN else "[^/]+"
        return re.compile(re.sub(r"\{\w+\}", f"({part})", self.path), re.DOTALL)

    @property
    def changes(self) -> bool:
        """Whether it changes the configuration or state."""
        return self.method != "GET"


def _whole() -> Iterator[Operation]:
    path = f"{BASE}/configuration"
    yield Operation(
        "show_configuration", "show_configuration", "GET", path,
        "Return the whole configuration, without secrets; as YAML with format=yaml.",
        models.ConfigurationResponse, "read", parameters=("format",),
    )  # fmt: skip
    yield Operation(
        "apply_configuration", "apply", "PUT", path,
        "Replace the whole configuration atomically; with dry_run=true, only return the changes.",
        models.AppliedResponse, "declare", wants=models.Written, parameters=("dry_run",),
        match=True, must_match=True, takes_yaml=True,
    )  # fmt: skip


def _entries(kind: str) -> Iterator[Operation]:
    noun = models.noun_of(kind)
    entry, page = models.ENTRIES[kind]
    by_pattern = kind in models.BY_PATTERN
    path, named = f"{BASE}/{kind}/{{name}}", PATTERN if by_pattern else NAME
    yield Operation(
        f"list_{kind}", "list_entries", "GET", f"{BASE}/{kind}", f"List the {kind}, page by page.",
        page, "read", kind, parameters=PAGE,
    )  # fmt: skip
    yield Operation(
        f"show_{noun}", "show_entry", "GET", path, f"Return one of the {kind}.",
        entry, "read", kind, named=named,
    )  # fmt: skip
    yield Operation(
        f"put_{noun}", "put_entry", "PUT", path, f"Create or replace one of the {kind}.",
        entry, "declare", kind, wants=models.KINDS[kind], match=True, named=named,
    )  # fmt: skip
    yield Operation(
        f"delete_{noun}", "delete_entry", "DELETE", path, f"Delete one of the {kind}.",
        None, "declare", kind, status=204, match=True, named=named,
    )  # fmt: skip


def _keys() -> Iterator[Operation]:
    path = f"{BASE}/keys"
    one = f"{path}/{{name}}"
    yield Operation(
        "list_keys", "list_keys", "GET", path, "List the keys of clients, page by page.",
        models.KeysResponse, "read", parameters=PAGE,
    )  # fmt: skip
    yield Operation(
        "create_key", "create_key", "POST", path, "Create a key; its secret is returned once.",
        models.SecretResponse, "keys", wants=models.KeyNamed, status=201,
    )  # fmt: skip
    yield Operation(
        "show_key", "show_key", "GET", one, "Return one key.", models.KeyResponse, "read"
    )
    yield Operation(
        "replace_key", "replace_key", "PUT", one, "Replace a key's terms, not its secret.",
        models.KeyResponse, "keys", wants=KeyTerms,
    )  # fmt: skip
    yield Operation(
        "rotate_key", "rotate_key", "POST", f"{one}/rotate",
        "Replace a key's secret; the new one is returned once. This re-enables a revoked key.",
        models.SecretResponse, "keys",
    )  # fmt: skip
    yield Operation(
        "revoke_key", "revoke_key", "POST", f"{one}/revoke", "Revoke a key on every replica.",
        models.Revoked, "keys",
    )  # fmt: skip


def _admins() -> Iterator[Operation]:
    path = f"{BASE}/admins"
    yield Operation(
        "who_am_i", "who", "GET", f"{BASE}/self", "Return the caller's name, role and rights.",
        models.CallerResponse, None,
    )  # fmt: skip
    yield Operation(
        "list_admins", "list_admins", "GET", path, "List the admin keys, page by page.",
        models.AdminsResponse, "admins", parameters=PAGE,
    )  # fmt: skip
    yield Operation(
        "create_admin", "create_admin", "POST", path,
        "Create an admin key; its secret is returned once.",
        models.SecretResponse, "appoint", wants=models.AdminNamed, status=201,
    )  # fmt: skip
    yield Operation(
        "revoke_admin", "revoke_admin", "POST", f"{path}/{{name}}/revoke",
        "Revoke an admin key immediately, on every replica.", models.Revoked, "appoint",
    )  # fmt: skip


def _rest() -> Iterator[Operation]:
    yield Operation(
        "list_budgets", "budgets", "GET", f"{BASE}/budgets",
        "List budgets with limit, spent, reserved, debt and reset; of one customer, or of all.",
        LedgerReply, "budgets", parameters=("customer",),
    )  # fmt: skip
    path = f"{BASE}/approvals"
    yield Operation(
        "list_approvals", "list_approvals", "GET", path,
        "List the calls that wait for approval, oldest first.", ApprovalsReply, "approvals",
    )  # fmt: skip
    yield Operation(
        "show_approval", "show_approval", "GET", f"{path}/{{name}}", "Return one approval in full.",
        ApprovalState, "approvals", named=APPROVAL,
    )  # fmt: skip
    for decision in ("approve", "reject"):
        yield Operation(
            f"{decision}_call", decision, "POST", f"{path}/{{name}}/{decision}",
            f"{decision.capitalize()} the call, once.", ApprovalState, "decide",
            wants=models.Decision, named=APPROVAL,
        )  # fmt: skip


OPERATIONS: dict[str, Operation] = {
    operation.id: operation
    for operation in (
        *_whole(),
        *_keys(),
        *_admins(),
        *(operation for kind in models.KINDS for operation in _entries(kind)),
        *_rest(),
    )
}
