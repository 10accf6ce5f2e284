"""Who may administer what, what may come from afar, what may be shown: decided without a bus."""

import json
import re
from threading import current_thread, main_thread
from typing import Any, cast, get_args

import pytest
import yaml

from toolbus_common.access.administrators import Administrator, of_key
from toolbus_common.admin_api.operations import OPERATIONS
from toolbus_common.admin_api.roles import RIGHTS, ROLES, Right, may
from toolbus_common.config import Admin, Configuration, Role, Team
from toolbus_common.config_store.redacted_view import restored, told_in_an_event
from toolbus_common.config_store.repository import (
    Applied,
    ConfigRepository,
    Make,
    StoredConfiguration,
)
from toolbus_common.contracts import AdminRequest
from toolbus_common.egress import Allowed, Egress
from toolbus_common.errors import FaultyError, InvalidError, UnconditionalError
from toolbus_ingress.admin_api import openapi, request
from toolbus_policy.admin import request_parser as reading
from toolbus_policy.admin.pagination import page
from toolbus_policy.admin.remote_restrictions import Reach
from toolbus_policy.admin.service import Office

HASH = "a" * 64
URL = "https://docs.example/mcp"


def declared(**sections: Any) -> Configuration:
    return Configuration.model_validate(sections)


# -- roles ----------------------------------------------------------------------------------------


def test_every_right_is_told_and_somebodys() -> None:
    assert set(RIGHTS) == set(get_args(Right))
    assert all(may("admin", right) for right in RIGHTS)


def test_an_unknown_role_may_nothing() -> None:
    assert not any(may("root", right) for right in RIGHTS)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "admin"])
def test_only_an_admin_declares_and_appoints(role: str) -> None:
    assert not may(role, "declare")
    assert not may(role, "appoint")


def test_who_looks_changes_nothing() -> None:
    for operation in OPERATIONS.values():
        if operation.changes:
            assert operation.right is not None
            assert not may("viewer", operation.right)
            assert not may("auditor", operation.right)


# -- shown and taken back -------------------------------------------------------------------------


def test_a_kept_credential_is_not_given_to_another_address() -> None:
    old = declared(servers={"docs": {"url": URL, "headers": {"X": "secret"}}})
    new = declared(servers={"docs": {"url": "https://else.example", "headers": {"X": "(set)"}}})
    with pytest.raises(FaultyError, match=r"servers\.docs\.headers\.X"):
        restored(new, old)


def test_an_event_holds_neither_a_hash_nor_a_credential() -> None:
    told = told_in_an_event({"secret_hash": HASH, "headers": {"X": "canary"}, "secret": "canary"})
    assert HASH not in told
    assert "canary" not in told
    assert len(json.loads(told)["secret_digest"]) == 16


# -- from afar ------------------------------------------------------------------------------------

STDIO = {"command": ["sh", "-c", "true"]}
VARIABLE = {"url": URL, "headers": {"Authorization": "Bearer ${env:DOCS_TOKEN}"}}
REPLICAS = {"replicas": ["https://a.example/mcp"], "headers": VARIABLE["headers"]}

PYTHON = {"python": ["sh:main"]}
API = {"openapi": "https://a.example/o.json", "credentials": {"token": "${env:DOCS_TOKEN}"}}


@pytest.mark.parametrize("server", [STDIO, VARIABLE, PYTHON, API])
def test_programs_and_variables_are_out_of_reach_unless_named(server: dict[str, Any]) -> None:
    new = declared(servers={"far": server})
    assert len(Reach().faults(Configuration(), new)) == 1
    assert Reach(("sh", "sh:*"), ("DOCS_*",)).faults(Configuration(), new) == []
    assert Reach(("other",), ("OTHER_*",)).faults(Configuration(), new) != []


@pytest.mark.parametrize("kept", ["file:/etc/shadow", "vault:kv/docs#token", "aws:docs"])
def test_a_secret_of_a_store_is_out_of_reach_unless_its_store_is_named(kept: str) -> None:
    new = declared(servers={"far": {"url": URL, "headers": {"Authorization": f"${{{kept}}}"}}})
    (fault,) = Reach((), ("*", "other:*")).faults(Configuration(), new)
    assert kept in fault["reason"]
    assert Reach((), (kept,)).faults(Configuration(), new) == []


@pytest.mark.parametrize("field", ["secret", "key", "assertion"])
def test_a_secret_of_an_oauth_client_is_out_of_reach_likewise(field: str) -> None:
    client = {"id": "x", field: "${file:/state/oauth-signing.json}"}
    oauth = {
        "grant": "client_credentials",
        "tokens": "shared",
        "clients": {"https://a.test": client},
    }
    new = declared(servers={"far": {"url": URL, "oauth": oauth}})
    (fault,) = Reach().faults(Configuration(), new)
    assert fault["place"] == f"servers.far.oauth.clients.https://a.test.{field}"
    moved = declared(servers={"far": {"url": "https://b.example/mcp", "oauth": oauth}})
    assert Reach().faults(new, moved) != []
    assert Reach().faults(new, new) == []


def test_a_file_of_the_executors_machine_is_out_of_reach() -> None:
    new = declared(servers={"far": {"openapi": "/etc/hosts"}})
    (fault,) = Reach(("*",), ("*",)).faults(Configuration(), new)
    assert fault["place"] == "servers.far.openapi"
    assert Reach().faults(new, new) == []


@pytest.mark.parametrize("server", [STDIO, VARIABLE, PYTHON, API])
def test_what_was_there_may_stay_as_it_is(server: dict[str, Any]) -> None:
    old = declared(servers={"far": server})
    assert Reach().faults(old, declared(servers={"far": {**server, "timeout": 9}})) == []


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
def test_what_was_there_is_not_turned_into_something_else(
    server: dict[str, Any], change: dict[str, Any]
) -> None:
    old = declared(servers={"far": server})
    assert Reach().faults(old, declared(servers={"far": {**server, **change}})) != []


def test_what_a_permitted_program_is_given_may_not_make_another_of_it() -> None:
    given = declared(servers={"far": {**STDIO, "env": {"NODE_OPTIONS": "--import=data:,x"}}})
    (fault,) = Reach(("sh",), ("DOCS_*",)).faults(Configuration(), given)
    assert fault["place"] == "servers.far.env.NODE_OPTIONS"
    assert Reach(("sh",), ("NODE_*",)).faults(Configuration(), given) == []


@pytest.mark.parametrize("server", [PYTHON, {"command": ["bin/sh"]}])
def test_a_permitted_program_is_not_looked_for_elsewhere(server: dict[str, Any]) -> None:
    given = declared(servers={"far": {**server, "cwd": "/srv/elsewhere"}})
    (fault,) = Reach(("sh:*", "bin/sh"), ()).faults(Configuration(), given)
    assert fault["place"] == "servers.far.cwd"
    assert Reach(("sh:*", "bin/sh", "/srv/*"), ()).faults(Configuration(), given) == []


def test_a_webhook_is_signed_with_no_variable_unless_it_is_named() -> None:
    hook = {"url": "https://collector.example", "secret": "${env:SOMEBODYS_TOKEN}"}
    new = declared(webhooks={"far": hook})
    (fault,) = Reach().faults(Configuration(), new)
    assert fault["place"] == "webhooks.far.secret"
    assert Reach((), ("SOMEBODYS_*",)).faults(Configuration(), new) == []
    told_more = declared(webhooks={"far": {**hook, "events": ["key.*"]}})
    assert Reach().faults(new, told_more) == []
    elsewhere = declared(webhooks={"far": {**hook, "url": "https://else.example"}})
    assert Reach().faults(new, elsewhere) != []


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
def test_where_nothing_may_be_called_is_out_of_reach(server: dict[str, Any], place: str) -> None:
    new = declared(servers={"far": server})
    (fault,) = Reach().faults(Configuration(), new)
    assert fault["place"] == f"servers.far.{place}"
    assert Reach().faults(new, declared(servers={"far": {**server, "timeout": 9}})) == []


def test_a_listed_address_is_in_reach_and_a_webhook_is_held_to_the_same() -> None:
    new = declared(
        servers={"far": {"url": "http://10.0.0.1/mcp"}},
        webhooks={"far": {"url": "http://10.0.0.2/hook", "secret": "x"}},
    )
    places = [fault["place"] for fault in Reach().faults(Configuration(), new)]
    assert places == ["servers.far.url", "webhooks.far.url"]
    assert Reach(egress=Egress(Allowed.of("10.0.0.0/30"))).faults(Configuration(), new) == []


# -- the office -----------------------------------------------------------------------------------


class Papers:
    """A desk on which one declaration lies."""

    def __init__(self, declaration: Configuration) -> None:
        self.now = StoredConfiguration(declaration, 7)

    async def declared(self) -> StoredConfiguration:
        return self.now

    async def change(self, make: Make, _source: str, _at: int | None) -> Applied:
        """Somebody else is as fast, and changes the next revision."""
        made = make(self.now.declaration)
        teams = {name: Team(environment="of another") for name in made.teams}
        self.now = StoredConfiguration(made.model_copy(update={"teams": teams}), 9)
        return Applied((), 8)


def office(role: Role, papers: Papers) -> Office:
    consulted: Any = None  # approvers and the ledger: nothing here asks them

    async def ann(_key_digest: str) -> Administrator:
        return of_key("ann", Admin(role=role))

    return Office(
        ann,
        lambda _by: cast("ConfigRepository", papers),
        consulted,
        consulted,
        Reach(),
    )


async def test_who_may_read_a_kind_is_not_told_another_under_its_name() -> None:
    papers = Papers(declared(admins={"root": {"role": "admin"}}))
    for operation in ("list_servers", "show_server"):
        asked = AdminRequest(key_digest="p", operation=operation, kind="admins", name="root")
        with pytest.raises(InvalidError):
            await office("viewer", papers).answer(asked)


async def test_what_is_told_of_an_entry_bears_the_revision_it_is_of() -> None:
    asked = AdminRequest(key_digest="p", operation="put_team", kind="teams", name="ops", body=b"{}")
    told = await office("admin", Papers(Configuration())).answer(asked)
    assert json.loads(told.body)["value"] == {"environment": "of another"}
    assert (told.revision, json.loads(told.body)["revision"]) == (9, 9)


async def test_a_whole_configuration_is_read_and_written_beside_the_loop_of_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here: list[bool] = []

    def seen(work: Any) -> Any:
        def working(*given: Any, **named: Any) -> Any:
            here.append(current_thread() is main_thread())
            return work(*given, **named)

        return working

    papers = Papers(declared(teams={"ops": {}}))
    monkeypatch.setattr(yaml, "safe_dump", seen(yaml.safe_dump))
    monkeypatch.setattr(reading, "loaded", seen(reading.loaded))
    admin = office("admin", papers)
    told = await admin.answer(
        AdminRequest(key_digest="p", operation="show_declaration", form="yaml")
    )
    assert yaml.safe_load(told.body) == {"teams": {"ops": {}}}
    with pytest.raises(UnconditionalError):
        await admin.answer(
            AdminRequest(key_digest="p", operation="apply_declaration", form="yaml", body=told.body)
        )
    assert here == [False, False]


# -- read -----------------------------------------------------------------------------------------


def test_a_number_is_not_taken_from_a_text() -> None:
    with pytest.raises(InvalidError, match=r"budget\.usd"):
        reading.written("teams", b'{"budget": {"usd": "5", "per": "day"}}')
    with pytest.raises(FaultyError, match="exactly one"):
        reading.written("teams", b'{"budget": {"per": "day"}}')


def test_a_price_that_lacks_something_has_the_form_of_a_price() -> None:
    with pytest.raises(FaultyError, match=r"prices\.a: needs most"):
        reading.shaped(Configuration, b'{"prices": {"a": {"call": 1, "kilobyte": 2}}}')
    with pytest.raises(InvalidError, match=r"prices\.a"):
        reading.shaped(Configuration, b'{"prices": {"a": "x"}}')


def test_a_whole_number_may_be_written_as_a_fraction() -> None:
    assert reading.written("teams", b'{"loop": {"calls": 9.0}}') == {"loop": {"calls": 9}}
    with pytest.raises(InvalidError, match=r"loop\.calls"):
        reading.written("teams", b'{"loop": {"calls": 9.5}}')


def test_a_query_of_very_many_parameters_is_refused() -> None:
    with pytest.raises(InvalidError, match="Too many"):
        request.parse_query(b"&".join([b"limit=1"] * 99), OPERATIONS["list_keys"])


def test_what_was_wrong_before_hinders_no_other_change() -> None:
    old = declared(teams={"lost": {"customer": "nobody"}})
    new = reading.with_entry(old, "users", "ann", {})
    assert set(new.users) == {"ann"}
    with pytest.raises(FaultyError, match=r"users\.ann\.customer"):
        reading.with_entry(old, "users", "ann", {"customer": "nobody"})


def test_a_page_ends_where_it_is_large_and_the_next_goes_on() -> None:
    entries = {name: name * 900_000 for name in "cab"}
    first = page(entries, entries.__getitem__, "", 100)
    assert (len(first["items"]), first["next"]) == (2, "b")
    last = page(entries, entries.__getitem__, first["next"], 100)
    assert (len(last["items"]), last["next"]) == (1, None)


@pytest.mark.parametrize("told", ["", "x", '"', '1"x', "W/1", "1, 2"])
def test_a_condition_that_cannot_be_read_is_refused(told: str) -> None:
    with pytest.raises(InvalidError):
        request.if_match({b"if-match": told.encode()})


# -- described ------------------------------------------------------------------------------------


def test_every_operation_is_described_for_the_roles_that_may() -> None:
    told = json.loads(openapi.document())
    described = {
        each["operationId"]: each["description"]
        for path, methods in told["paths"].items()
        for each in methods.values()
        if path.startswith("/api/v1")
    }
    assert set(described) == set(OPERATIONS)
    for operation in OPERATIONS.values():
        for role in ROLES:
            allowed = operation.right is None or may(role, operation.right)
            named = described[operation.id].removeprefix("For the roles ").rstrip(".").split(", ")
            assert (role in named) == allowed


def test_what_bounds_a_number_is_told_in_the_words_of_json_schema() -> None:
    told = openapi.document().decode()
    assert not re.findall(r'"(?:ge|gt|le|lt|min_length|max_length)":', told)
    assert '"minimum": 183' in told


def test_a_path_leads_to_its_operation_alone() -> None:
    for operation in OPERATIONS.values():
        found = request.match_operation(operation.path.replace("{name}", "a"), operation.method)
        assert isinstance(found, request.Matched)
        assert found.operation is operation


@pytest.mark.parametrize("told", [["shop.tools:search"], "shop.tools:search"])
def test_functions_are_taken_as_a_list_and_as_one(told: Any) -> None:
    found = reading.written("servers", json.dumps({"python": told}).encode())
    assert found == {"python": ["shop.tools:search"]}
