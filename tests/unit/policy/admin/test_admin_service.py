"""Administration roles, remote restrictions and redaction, without a bus."""

import json
from threading import current_thread, main_thread
from typing import Any, cast, get_args

import pytest
import yaml

from harness.builders.configurations import configured
from harness.receivers.webhook_receiver import webhook_secret
from toolbus_common.access.administrators import Administrator, of_key
from toolbus_common.admin_api.operations import OPERATIONS
from toolbus_common.admin_api.roles import RIGHTS, ROLES, Right, may
from toolbus_common.config import Admin, Configuration, Role, Team
from toolbus_common.config_store.drafts import Make
from toolbus_common.config_store.redacted_view import event_json, restored
from toolbus_common.config_store.repository import (
    Applied,
    ConfigRepository,
    StoredConfiguration,
)
from toolbus_common.contracts import AdminRequest
from toolbus_common.egress import Allowed, Egress
from toolbus_common.errors import InvalidConfigurationError, InvalidError, UnconditionalError
from toolbus_policy.admin import request_parser as reading
from toolbus_policy.admin.configuration import ConfigurationOperations
from toolbus_policy.admin.definitions import DefinitionOperations
from toolbus_policy.admin.installation import InstallationOperations
from toolbus_policy.admin.pagination import page
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.service import AdminService

HASH = "a" * 64
URL = "https://docs.example/mcp"


# -- roles ----------------------------------------------------------------------------------------


def test_every_right_is_described_and_belongs_to_a_role() -> None:
    assert set(RIGHTS) == set(get_args(Right))
    assert all(may("admin", right) for right in RIGHTS)


def test_an_unknown_role_has_no_rights() -> None:
    assert not any(may("root", right) for right in RIGHTS)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "admin"])
def test_only_an_admin_may_declare_and_manage_admins(role: str) -> None:
    assert not may(role, "declare")
    assert not may(role, "appoint")


def test_an_auditor_changes_nothing() -> None:
    for operation, right in OPERATIONS.items():
        if not operation.startswith(("list_", "show_", "who_")):
            assert right is not None
            assert not may("viewer", right)
            assert not may("auditor", right)


def test_every_operation_is_performed_by_a_method_of_the_service() -> None:
    for operation in OPERATIONS:
        owners = [
            AdminService,
            InstallationOperations,
            DefinitionOperations,
            ConfigurationOperations,
        ]
        assert sum(hasattr(owner, operation) for owner in owners) == 1, operation


@pytest.mark.parametrize(
    ("operation", "kind"),
    [("who_am_i", "servers"), ("put_entry", ""), ("put_entry", "keys"), ("handle", "")],
)
async def test_an_operation_of_another_version_is_rejected(operation: str, kind: str) -> None:
    unused = cast("Any", None)
    service = AdminService(unused, unused, unused, unused, RemoteRestrictions(), unused, unused, ())
    with pytest.raises(InvalidError, match="differ in version"):
        await service.handle(AdminRequest(key_digest="k", operation=operation, kind=kind))


# -- shown and restored -------------------------------------------------------------------


def test_a_hidden_credential_is_not_restored_for_another_address() -> None:
    old = configured(servers={"docs": {"url": URL, "headers": {"X": "secret"}}})
    new = configured(servers={"docs": {"url": "https://else.example", "headers": {"X": "(set)"}}})
    with pytest.raises(InvalidConfigurationError, match=r"servers\.docs\.headers\.X"):
        restored(new, old)


def test_an_event_holds_neither_a_hash_nor_a_credential() -> None:
    result = event_json({"secret_hash": HASH, "headers": {"X": "canary"}, "secret": "canary"})
    assert HASH not in result
    assert "canary" not in result
    assert len(json.loads(result)["secret_digest"]) == 16


# -- over HTTP ------------------------------------------------------------------------------------

STDIO = {"command": ["sh", "-c", "true"]}
VARIABLE = {"url": URL, "headers": {"Authorization": "Bearer ${env:DOCS_TOKEN}"}}
REPLICAS = {"replicas": ["https://a.example/mcp"], "headers": VARIABLE["headers"]}

PYTHON = {"python": ["sh:main"]}
API = {"openapi": "https://a.example/o.json", "credentials": {"token": "${env:DOCS_TOKEN}"}}


@pytest.mark.parametrize("server", [STDIO, VARIABLE, PYTHON, API])
def test_programs_and_variables_need_permission(server: dict[str, Any]) -> None:
    new = configured(servers={"far": server})
    assert len(RemoteRestrictions().violations(Configuration(), new)) == 1
    assert RemoteRestrictions(("sh", "sh:*"), ("DOCS_*",)).violations(Configuration(), new) == []
    assert RemoteRestrictions(("other",), ("OTHER_*",)).violations(Configuration(), new) != []


@pytest.mark.parametrize("kept", ["file:/etc/shadow", "vault:kv/docs#token", "aws:docs"])
def test_a_secret_of_a_store_needs_permission_for_the_store(kept: str) -> None:
    new = configured(servers={"far": {"url": URL, "headers": {"Authorization": f"${{{kept}}}"}}})
    (problem,) = RemoteRestrictions((), ("*", "other:*")).violations(Configuration(), new)
    assert kept in problem["reason"]
    assert RemoteRestrictions((), (kept,)).violations(Configuration(), new) == []


@pytest.mark.parametrize("field", ["secret", "key", "assertion"])
def test_a_secret_of_an_oauth_client_needs_permission(field: str) -> None:
    client = {"id": "x", field: "${file:/state/oauth-signing.json}"}
    oauth = {
        "grant": "client_credentials",
        "tokens": "shared",
        "clients": {"https://a.test": client},
    }
    new = configured(servers={"far": {"url": URL, "oauth": oauth}})
    (problem,) = RemoteRestrictions().violations(Configuration(), new)
    assert problem["location"] == f"servers.far.oauth.clients.https://a.test.{field}"
    moved = configured(servers={"far": {"url": "https://b.example/mcp", "oauth": oauth}})
    assert RemoteRestrictions().violations(new, moved) != []
    assert RemoteRestrictions().violations(new, new) == []


def test_a_file_of_the_executors_machine_is_not_permitted() -> None:
    new = configured(servers={"far": {"openapi": "/etc/hosts"}})
    (problem,) = RemoteRestrictions(("*",), ("*",)).violations(Configuration(), new)
    assert problem["location"] == "servers.far.openapi"
    assert RemoteRestrictions().violations(new, new) == []


@pytest.mark.parametrize("server", [STDIO, VARIABLE, PYTHON, API])
def test_existing_entries_may_stay_unchanged(server: dict[str, Any]) -> None:
    old = configured(servers={"far": server})
    assert (
        RemoteRestrictions().violations(old, configured(servers={"far": {**server, "timeout": 9}}))
        == []
    )


@pytest.mark.parametrize(
    ("server", "change"),
    [
        (STDIO, {"command": ["sh", "-c", "false"]}),
        (STDIO, {"env": {"LD_PRELOAD": "x"}}),
        (STDIO, {"cwd": "/elsewhere"}),
        ({**STDIO, "files": {}}, {"files": None}),
        (STDIO, {"limits": {"memory": 1 << 20}}),
        (STDIO, {"namespaces": False}),
        ({**STDIO, "network": "none"}, {"network": "any"}),
        (VARIABLE, {"url": "https://collector.example/mcp"}),
        (VARIABLE, {"headers": {"Authorization": "${env:ANOTHER}"}}),
        (REPLICAS, {"replicas": ["https://a.example/mcp", "https://collector.example/mcp"]}),
        (PYTHON, {"python": ["os:system"]}),
        (API, {"openapi": "https://collector.example/o.json"}),
        (API, {"base_url": "https://collector.example"}),
    ],
)
def test_an_existing_entry_may_not_become_another(
    server: dict[str, Any], change: dict[str, Any]
) -> None:
    old = configured(servers={"far": server})
    assert (
        RemoteRestrictions().violations(old, configured(servers={"far": {**server, **change}}))
        != []
    )


def test_variables_may_not_turn_a_permitted_program_into_another() -> None:
    given = configured(servers={"far": {**STDIO, "env": {"NODE_OPTIONS": "--import=data:,x"}}})
    (problem,) = RemoteRestrictions(("sh",), ("DOCS_*",)).violations(Configuration(), given)
    assert problem["location"] == "servers.far.env.NODE_OPTIONS"
    assert RemoteRestrictions(("sh",), ("NODE_*",)).violations(Configuration(), given) == []


@pytest.mark.parametrize("server", [PYTHON, {"command": ["bin/sh"]}])
def test_the_working_directory_of_a_permitted_program_needs_permission(
    server: dict[str, Any],
) -> None:
    given = configured(servers={"far": {**server, "cwd": "/srv/elsewhere"}})
    (problem,) = RemoteRestrictions(("sh:*", "bin/sh"), ()).violations(Configuration(), given)
    assert problem["location"] == "servers.far.cwd"
    assert (
        RemoteRestrictions(("sh:*", "bin/sh", "/srv/*"), ()).violations(Configuration(), given)
        == []
    )


def test_a_webhooks_signing_variable_needs_permission() -> None:
    hook = {"url": "https://collector.example", "secret": "${env:OTHERS_TOKEN}"}
    new = configured(webhooks={"far": hook})
    (problem,) = RemoteRestrictions().violations(Configuration(), new)
    assert problem["location"] == "webhooks.far.secret"
    assert RemoteRestrictions((), ("OTHERS_*",)).violations(Configuration(), new) == []
    result_with_more = configured(webhooks={"far": {**hook, "events": ["key.*"]}})
    assert RemoteRestrictions().violations(new, result_with_more) == []
    elsewhere = configured(webhooks={"far": {**hook, "url": "https://else.example"}})
    assert RemoteRestrictions().violations(new, elsewhere) != []


@pytest.mark.parametrize(
    ("server", "place"),
    [
        ({"url": "http://127.0.0.1:9000/mcp"}, "url"),
        ({"sse": "http://0x7f.1/sse"}, "sse"),
        ({"openapi": "https://localhost/o.json"}, "openapi"),
        ({"openapi": "https://a.example/o.json", "base_url": "http://[::1]"}, "base_url"),
        ({"url": URL, "proxy": "http://10.0.0.1:3128"}, "proxy"),
        ({"url": URL, "ca": "/etc/hosts"}, "ca"),
        ({"url": URL, "certificate": "/etc/hosts"}, "certificate"),
    ],
)
def test_a_forbidden_address_is_not_permitted(server: dict[str, Any], place: str) -> None:
    new = configured(servers={"far": server})
    (problem,) = RemoteRestrictions().violations(Configuration(), new)
    assert problem["location"] == f"servers.far.{place}"
    assert (
        RemoteRestrictions().violations(new, configured(servers={"far": {**server, "timeout": 9}}))
        == []
    )


def test_a_listed_address_is_permitted_for_servers_and_webhooks() -> None:
    new = configured(
        servers={"far": {"url": "http://10.0.0.1/mcp"}},
        webhooks={"far": {"url": "http://10.0.0.2/hook", "secret": webhook_secret("s" * 24)}},
    )
    found = RemoteRestrictions().violations(Configuration(), new)
    assert [each["location"] for each in found] == ["servers.far.url", "webhooks.far.url"]
    assert (
        RemoteRestrictions(egress=Egress(Allowed.of("10.0.0.0/30"))).violations(
            Configuration(), new
        )
        == []
    )


# -- the repository -------------------------------------------------------------------------------


class ConfigurationStub:
    """A repository of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self.now = StoredConfiguration(configuration, 7)

    async def declared(self) -> StoredConfiguration:
        return self.now

    async def change(self, make: Make, _source: str, _at: int | None) -> Applied:
        """Another administrator changes the next revision at the same time."""
        made = make(self.now.configuration)
        teams = {name: Team(environment="of another") for name in made.teams}
        self.now = StoredConfiguration(made.model_copy(update={"teams": teams}), 9)
        return Applied((), 8)


def admin_service(role: Role, repository: ConfigurationStub) -> AdminService:
    consulted: Any = None  # approvals and the ledger are not used here

    async def ann(_key_digest: str) -> Administrator:
        return of_key("ann", Admin(role=role))

    def repository_for(_by: str) -> ConfigRepository:
        return cast("ConfigRepository", repository)

    restrictions = RemoteRestrictions()
    return AdminService(
        ann,
        repository_for,
        consulted,
        consulted,
        restrictions,
        consulted,
        consulted,
        (ConfigurationOperations(repository_for, restrictions),),
    )


async def test_an_entry_is_not_returned_under_another_kind() -> None:
    repository = ConfigurationStub(configured(admins={"root": {"role": "admin"}}))
    for operation in ("list_servers", "show_server"):
        request = AdminRequest(key_digest="p", operation=operation, kind="admins", name="root")
        with pytest.raises(InvalidError):
            await admin_service("viewer", repository).handle(request)


async def test_a_returned_entry_has_its_own_revision() -> None:
    request = AdminRequest(
        key_digest="p", operation="put_entry", kind="teams", name="ops", body=b"{}"
    )
    result = await admin_service("admin", ConfigurationStub(Configuration())).handle(request)
    assert json.loads(result.body)["value"] == {"environment": "of another"}
    assert (result.revision, json.loads(result.body)["revision"]) == (9, 9)


async def test_a_whole_configuration_is_parsed_and_written_off_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here: list[bool] = []

    def seen(work: Any) -> Any:
        def working(*given: Any, **named: Any) -> Any:
            here.append(current_thread() is main_thread())
            return work(*given, **named)

        return working

    repository = ConfigurationStub(configured(teams={"ops": {}}))
    monkeypatch.setattr(yaml, "safe_dump", seen(yaml.safe_dump))
    monkeypatch.setattr(reading, "load_configuration", seen(reading.load_configuration))
    admin = admin_service("admin", repository)
    result = await admin.handle(
        AdminRequest(key_digest="p", operation="show_configuration", form="yaml")
    )
    assert yaml.safe_load(result.body) == {"teams": {"ops": {}}}
    with pytest.raises(UnconditionalError):
        await admin.handle(
            AdminRequest(
                key_digest="p", operation="apply_configuration", form="yaml", body=result.body
            )
        )
    assert here == [False, False]


# -- read -----------------------------------------------------------------------------------------


def test_a_number_in_a_string_is_rejected() -> None:
    with pytest.raises(InvalidError, match=r"budget\.usd"):
        reading.parse_entry("teams", b'{"budget": {"usd": "5", "per": "day"}}')
    with pytest.raises(InvalidConfigurationError, match="exactly one"):
        reading.parse_entry("teams", b'{"budget": {"per": "day"}}')


def test_an_incomplete_price_is_validated_as_a_price() -> None:
    with pytest.raises(InvalidConfigurationError, match=r"prices\.a: needs 'maximum'"):
        reading.parse_body(Configuration, b'{"prices": {"a": {"call": 1, "kilobyte": 2}}}')
    with pytest.raises(InvalidError, match=r"prices\.a"):
        reading.parse_body(Configuration, b'{"prices": {"a": "x"}}')


def test_an_integer_may_be_written_with_a_decimal_point() -> None:
    assert reading.parse_entry("teams", b'{"loop": {"calls": 9.0}}') == {"loop": {"calls": 9}}
    with pytest.raises(InvalidError, match=r"loop\.calls"):
        reading.parse_entry("teams", b'{"loop": {"calls": 9.5}}')


def test_an_earlier_problem_does_not_block_another_change() -> None:
    old = configured(teams={"lost": {"customer": "nobody"}})
    new = reading.with_entry(old, "users", "ann", {})
    assert set(new.users) == {"ann"}
    with pytest.raises(InvalidConfigurationError, match=r"users\.ann\.customer"):
        reading.with_entry(old, "users", "ann", {"customer": "nobody"})


def test_a_large_page_is_cut_and_the_next_continues() -> None:
    entries = {name: name * 900_000 for name in "cab"}
    request = AdminRequest(key_digest="", operation="list_keys")
    first = page(entries, entries.__getitem__, request)
    assert (len(first["items"]), first["next"]) == (2, "b")
    further = request.model_copy(update={"after": first["next"]})
    last = page(entries, entries.__getitem__, further)
    assert (len(last["items"]), last["next"]) == (1, None)


@pytest.mark.parametrize(("search", "found"), [("", 3), ("AL", 2), ("bet", 1), ("x", 0)])
def test_a_page_has_the_entries_whose_names_contain_a_text(search: str, found: int) -> None:
    request = AdminRequest(key_digest="", operation="list_keys", search=search)
    entries = dict.fromkeys(("alpha", "beta", "final"), 1)
    assert len(page(entries, entries.__getitem__, request)["items"]) == found


@pytest.mark.parametrize("result", [["shop.tools:search"], "shop.tools:search"])
def test_functions_are_accepted_as_list_or_single_name(result: Any) -> None:
    found = reading.parse_entry("servers", json.dumps({"python": result}).encode())
    assert found == {"python": ["shop.tools:search"]}
