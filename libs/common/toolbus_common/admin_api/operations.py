"""Operations of the administration API, and the right that each requires (no I/O).

Ingress serves these operations (`toolbus_ingress.admin_api`). Policy performs them: each is a
method of `toolbus_policy.admin.service.AdminService`, or of its `installation`.
"""

from toolbus_common.admin_api.models import KINDS
from toolbus_common.admin_api.roles import Right

_OF_ENTRIES: dict[str, Right | None] = {
    "list_entries": "read",
    "show_entry": "read",
    "put_entry": "declare",
    "delete_entry": "declare",
}
OPERATIONS: dict[str, Right | None] = {
    **_OF_ENTRIES,
    "who_am_i": None,
    "show_configuration": "read",
    "apply_configuration": "declare",
    "list_revisions": "read",
    "restore_revision": "declare",
    "list_keys": "read",
    "show_key": "read",
    "create_key": "keys",
    "replace_key": "keys",
    "rotate_key": "keys",
    "revoke_key": "keys",
    "show_explanation": "budgets",
    "list_admins": "admins",
    "create_admin": "appoint",
    "revoke_admin": "appoint",
    "list_budgets": "budgets",
    "show_coverage": "budgets",
    "show_cache": "read",
    "purge_cache": "purge",
    "list_approvals": "approvals",
    "show_approval": "approvals",
    "approve_call": "decide",
    "reject_call": "decide",
    "list_definitions": "read",
    "approve_definition": "decide",
    "reject_definition": "decide",
    "list_catalogue": "read",
    "show_catalogue_entry": "read",
    "list_runs": "read",
    "show_run": "read",
    "cancel_run": "decide",
    "list_flow_runs": "read",
    "reset_flow_run": "decide",
    "show_status": "read",
    "show_checks": "read",
    "list_server_states": "read",
    "show_audit_rows": "audit",
    "show_audit_events": "audit",
    "list_saved_queries": "audit",
    "show_saved_rows": "audit",
    "show_proofs": "audit",
    "show_rule_replay": "audit",
    "list_holds": "audit",
    "place_hold": "hold",
    "lift_hold": "hold",
    "erase_person": "erase",
}


def exists(operation: str, kind: str) -> bool:
    """Return whether the operation exists. Only operations on entries have a kind."""
    return operation in OPERATIONS and (kind in KINDS if operation in _OF_ENTRIES else not kind)
