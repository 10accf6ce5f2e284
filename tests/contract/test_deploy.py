"""The deployment fits the services: their seeds, settings, commands and permissions."""

import importlib
import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.engines.engine import installed
from toolbus_common.config_store.literal_secrets import READERS, WRITERS
from toolbus_common.contracts import EVENTS as EVERY_EVENT
from toolbus_common.contracts import (
    AdminRequest,
    ApprovalsQuery,
    ApproveRequest,
    ApproverRequest,
    AuditQuery,
    BackfillLinesRequest,
    BackfillRequest,
    CachedResponsesQuery,
    CallAdmitted,
    CallRequested,
    Event,
    EventsQuery,
    ExplainQuery,
    FlowRunsQuery,
    FreezeRequest,
    GuardChecksQuery,
    GuardQuery,
    IdentityKeyQuery,
    IdentityRequest,
    LedgerQuery,
    OpenCallsQuery,
    OwnExplainQuery,
    OwnRunsRequest,
    PageRequest,
    PurgeCacheRequest,
    Query,
    RebuildRequest,
    RejectRequest,
    ResetFlowRequest,
    RunsRequest,
    ServersQuery,
    SessionsQuery,
    SignInLinkQuery,
    SpendingQuery,
    StatusQuery,
    TokenQuery,
    UnresolvedCallsQuery,
    UpstreamTokenQuery,
)
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.nats.accounts import Rights
from toolbus_common.nats.permissions import (
    OPERATOR,
    create_seeds,
    rights,
    server_configuration,
)
from toolbus_common.nats.topology import (
    APPROVALS,
    BUCKETS,
    CONFIG,
    DURABLES,
    EVENTS,
    OAUTH,
    OAUTH_BRIEF,
    OAUTH_CLIENTS,
    PEOPLE,
    TASKS,
    TOKENS,
)
from toolbus_common.service.names import SERVICES

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OPERATOR_QUERIES: tuple[type[Query], ...] = (
    ApprovalsQuery, ApproveRequest, AuditQuery, EventsQuery, GuardQuery, IdentityRequest,
    BackfillLinesRequest, GuardChecksQuery, LedgerQuery, OpenCallsQuery, RebuildRequest,
    BackfillRequest, FreezeRequest, RejectRequest, RunsRequest, FlowRunsQuery, ResetFlowRequest,
    ServersQuery, SessionsQuery, CachedResponsesQuery, PurgeCacheRequest, SpendingQuery,
    StatusQuery, UnresolvedCallsQuery, ExplainQuery,
)  # fmt: skip
QUERIES_OF_EXECUTOR: tuple[type[Query], ...] = (UpstreamTokenQuery, IdentityKeyQuery)
QUERIES_OF_POLICY: set[type[Query]] = {
    GuardQuery, GuardChecksQuery, CachedResponsesQuery, RunsRequest, OpenCallsQuery,
    PurgeCacheRequest, SpendingQuery, UnresolvedCallsQuery, AuditQuery, EventsQuery, ServersQuery,
    SessionsQuery, StatusQuery,
}  # fmt: skip


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return data


def covers(pattern: str, subject: str) -> bool:
    """Return whether a NATS pattern covers a subject or a narrower pattern."""
    wanted, request = pattern.split("."), subject.split(".")
    for at, token in enumerate(wanted):
        if token == ">":
            return len(request) > at
        if at >= len(request) or request[at] == ">" or token not in ("*", request[at]):
            return False
    return len(request) == len(wanted)


def publishers(subject: str) -> set[str]:
    return {user for user, granted in rights().items() if can_publish(granted, subject)}


def can_publish(granted: Rights, subject: str) -> bool:
    denied = any(covers(pattern, subject) for pattern in granted.deny_publish)
    return not denied and any(covers(pattern, subject) for pattern in granted.publish)


def subscribers(subject: str) -> set[str]:
    return {
        user
        for user, granted in rights().items()
        if any(covers(pattern, subject) for pattern in granted.subscribe)
        and not any(covers(pattern, subject) for pattern in granted.deny_subscribe)
    }


# -- compose ---------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_its_own_container(compose: dict[str, Any], service: str) -> None:
    assert compose["services"][service]["command"] == ["run", service]


@pytest.mark.parametrize("user", [*SERVICES, "operator", "provision"])
def test_a_service_holds_only_its_own_seed_and_keys(compose: dict[str, Any], user: str) -> None:
    owner = OPERATOR if user == "provision" else user
    secret, *others = compose["services"][user]["secrets"]
    assert secret["source"] == f"{owner}_seed"
    assert secret["target"] == f"/var/lib/toolbus/nkeys/{owner}.seed"
    given = compose["secrets"][secret["source"]]["file"]
    assert given == f"./nats/generated/nkeys/{owner}.seed"
    # Services that publish or read personal data share one key.
    knows = user != "provision" and can_publish(rights()[owner], f"$KV.{PEOPLE}.x")
    mounted = {each["target"].removeprefix("/var/lib/toolbus/") for each in others}
    wanted = {"people.key"} if knows or user == "audit" else set()
    # A service that writes the configuration seals secrets; each service opens its own.
    declares = user != "provision" and can_publish(rights()[owner], f"$KV.{CONFIG}.configuration")
    wanted |= {f"encryption/{WRITERS}"} if declares else set()
    wanted |= {f"encryption/{user}.key"} if user in READERS else set()
    wanted |= {"policy.key"} if user == "policy" else set()
    assert mounted == wanted


def test_every_mounted_seed_and_key_is_written_by_nats_config(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    given = {each["file"].removeprefix("./nats/generated/") for each in compose["secrets"].values()}
    subprocess.run([installed("toolbus"), "nats-config", str(tmp_path)], check=True)
    assert {path for path in given if (tmp_path / path).is_file()} == given
    sources = {f"{user}_seed" for user in rights()}
    sources |= {"people_key", "policy_key", "encryption_writers"}
    assert set(compose["secrets"]) == sources | {f"{each}_encryption" for each in READERS}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_receives_only_settings_it_has(compose: dict[str, Any], service: str) -> None:
    known = importlib.import_module(f"toolbus_{service}.settings").Settings.model_fields
    result = compose["services"][service]["environment"]
    own = {name.removeprefix("TOOLBUS_").lower() for name in result if not name.startswith("OTEL_")}
    assert own <= set(known)


@pytest.mark.parametrize(
    ("setting", "service"), [("TOOLBUS_REDIS_URL", "policy"), ("TOOLBUS_CLICKHOUSE_URL", "audit")]
)
def test_an_engines_password_is_set_for_one_service(
    compose: dict[str, Any], setting: str, service: str
) -> None:
    services = compose["services"].items()
    assert [name for name, each in services if setting in each.get("environment", {})] == [service]


def test_the_file_holds_no_password(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        words = [*service.get("command", []), *map(str, service.get("environment", {}).values())]
        for word in words:
            assert not re.search(r"//[^$/]*:[^$/]+@", word), word
    assert (
        "${TOOLBUS_VALKEY_PASSWORD:?run setup.sh first}" in compose["services"]["valkey"]["command"]
    )


def test_only_pages_and_the_edge_are_published_and_only_on_the_loopback(
    compose: dict[str, Any],
) -> None:
    ports = {name: each["ports"] for name, each in compose["services"].items() if "ports" in each}
    assert list(ports) == ["ingress", "prometheus", "grafana"]
    published = [port for each in ports.values() for port in each]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_after_provisioning_without_privileges(
    compose: dict[str, Any], service: str
) -> None:
    composed = compose["services"][service]
    assert composed["depends_on"]["provision"]["condition"] == "service_completed_successfully"
    assert composed["cap_drop"] == ["ALL"]
    assert composed["security_opt"] == ["no-new-privileges:true"]
    assert composed["read_only"] is True


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_keeps_its_unsent_events_on_a_volume(
    compose: dict[str, Any], service: str
) -> None:
    assert compose["services"][service]["volumes"] == [f"{service}:/var/lib/toolbus"]
    assert service in compose["volumes"]


def test_counters_are_persisted_and_never_evicted(compose: dict[str, Any]) -> None:
    words = compose["services"]["valkey"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_dashboards_read_the_store_as_a_user_who_changes_nothing(compose: dict[str, Any]) -> None:
    environment = compose["services"]["grafana"]["environment"]
    user = yaml.safe_load((DEPLOY / "clickhouse" / "grafana.yaml").read_text())["users"]
    assert list(user) == [environment["TOOLBUS_READER"]]
    assert user["grafana"]["profile"] == "readonly"
    assert "TOOLBUS_CLICKHOUSE_PASSWORD" not in str(environment)


# -- permissions against contracts -----------------------------------------------------------


def test_every_service_and_the_operator_is_a_user_of_the_bus() -> None:
    assert set(rights()) == {*SERVICES, OPERATOR}


@pytest.mark.parametrize("event", EVERY_EVENT.values(), ids=lambda event: event.NAME)
def test_every_event_has_a_service_that_may_publish_it(event: type[Event]) -> None:
    assert publishers(f"tb.event.{event.NAME}.acme")


def test_only_policy_may_publish_an_intent() -> None:
    assert publishers("tb.event.call.allowed.acme") == {"policy"}
    assert publishers("tb.event.call.denied.acme") == {"policy"}


def test_no_user_may_publish_every_event() -> None:
    assert publishers("tb.event.>") == set()


def test_a_call_goes_from_the_edge_to_policy_and_from_there_to_executor() -> None:
    assert publishers(f"{CallRequested.SUBJECT}.docs") == {"ingress", "codemode"}
    assert subscribers(f"{CallRequested.SUBJECT}.docs") == {"policy"}
    assert publishers(f"{CallAdmitted.SUBJECT}.docs") == {"policy"}
    assert subscribers(f"{CallAdmitted.SUBJECT}.docs") == {"executor"}


def test_only_codemode_receives_calls_with_a_key_digest() -> None:
    assert subscribers(f"{CallAdmitted.SUBJECT}.{BUILT_IN}") == {"codemode"}


@pytest.mark.parametrize("query", OPERATOR_QUERIES, ids=lambda query: query.SUBJECT)
def test_a_query_is_sent_by_the_operator_and_received_by_its_service(
    query: type[Query],
) -> None:
    service = query.SUBJECT.split(".")[2]
    services = {"policy"} if query in QUERIES_OF_POLICY else set()
    services |= {"codemode"} if query is GuardQuery else set()
    assert publishers(query.SUBJECT) == {OPERATOR, *services}
    assert subscribers(query.SUBJECT) == (set(SERVICES) if service == "all" else {service})


def test_every_query_is_covered_by_these_tests() -> None:
    contracts = importlib.import_module("toolbus_common.contracts")
    found = {
        kind
        for _, kind in inspect.getmembers(contracts, inspect.isclass)
        if issubclass(kind, Query) and kind is not Query
    }
    assert found == {
        *OPERATOR_QUERIES,
        *(
            ApproverRequest,
            AdminRequest,
            OwnExplainQuery,
            OwnRunsRequest,
            PageRequest,
            SignInLinkQuery,
            TokenQuery,
            *QUERIES_OF_EXECUTOR,
        ),
    }


@pytest.mark.parametrize("query", QUERIES_OF_EXECUTOR, ids=lambda query: query.__name__)
def test_only_executor_may_query_upstream_tokens_and_identity_keys(
    query: type[Query],
) -> None:
    assert publishers(query.SUBJECT) == {"executor"}
    assert subscribers(query.SUBJECT) == {"oauth"}


def test_ingress_sends_requests_about_the_runs_of_callers_to_codemode() -> None:
    assert publishers(OwnRunsRequest.SUBJECT) == {"ingress", OPERATOR}
    assert subscribers(OwnRunsRequest.SUBJECT) == {"codemode"}


def test_ingress_sends_requests_of_approvers_and_admins_to_policy() -> None:
    for query in (ApproverRequest, AdminRequest, OwnExplainQuery):
        assert publishers(query.SUBJECT) == {"ingress", OPERATOR}
        assert subscribers(query.SUBJECT) == {"policy"}


def test_ingress_sends_pages_and_tokens_to_oauth_only() -> None:
    for query in (PageRequest, SignInLinkQuery, TokenQuery):
        assert publishers(query.SUBJECT) == {"ingress", OPERATOR}
        assert subscribers(query.SUBJECT) == {"oauth"}


def test_only_oauth_writes_tokens_and_clients() -> None:
    for bucket in (OAUTH, OAUTH_CLIENTS, OAUTH_BRIEF, TOKENS):
        assert publishers(f"$KV.{bucket}.entry") == {"oauth"}
    for bucket in (OAUTH, OAUTH_CLIENTS, OAUTH_BRIEF):
        assert publishers(f"$JS.API.DIRECT.GET.KV_{bucket}.entry") == {"oauth", OPERATOR}


def test_only_policy_writes_approvals() -> None:
    assert publishers(f"$KV.{APPROVALS}.binding") == {"policy"}
    assert publishers(f"$KV.{TASKS}.approval") == {"policy"}
    for what in ("requested", "granted", "rejected", "expired", "used", "withdrawn"):
        assert publishers(f"tb.event.approval.{what}.acme") == {"policy"}


def test_a_service_receives_only_its_own_replies() -> None:
    for service in SERVICES:
        assert subscribers(f"tb.reply.{service}.x") == {service}
        assert subscribers(f"_INBOX.{service}.x") == {service}


def test_a_durable_consumer_belongs_to_one_service() -> None:
    for durable in DURABLES:
        pulled = publishers(f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{durable.consumer_name}")
        assert pulled == {durable.service, OPERATOR}


@pytest.mark.parametrize("stream", [EVENTS, *(f"KV_{bucket.bucket}" for bucket in BUCKETS)])
def test_no_user_may_delete_or_purge_a_stream(stream: str) -> None:
    assert publishers(f"$JS.API.STREAM.DELETE.{stream}") == set()
    assert publishers(f"$JS.API.STREAM.PURGE.{stream}") == set()


def test_only_the_operator_and_policy_write_the_configuration() -> None:
    assert publishers("$KV.tb_config.configuration") == {OPERATOR, "policy"}


@pytest.mark.parametrize(("strict", "synced"), [(False, "1s"), (True, "always")])
def test_a_real_server_accepts_the_generated_configuration(
    tmp_path: Path, *, strict: bool, synced: str
) -> None:
    configuration = server_configuration(
        create_seeds(tmp_path / "nkeys"), host="0.0.0.0", port=4222, store_dir="/d", strict=strict
    )
    assert configuration["jetstream"]["sync_interval"] == synced
    path = tmp_path / "nats.conf"
    path.write_text(json.dumps(configuration))
    result = subprocess.run(
        [installed("nats-server"), "-t", "-c", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_generated_configuration_holds_no_private_key(tmp_path: Path) -> None:
    public = create_seeds(tmp_path)
    result = json.dumps(server_configuration(public, host="h", port=1, store_dir="/data"))
    for seed in tmp_path.iterdir():
        assert seed.read_text().strip() not in result
        assert seed.stat().st_mode & 0o077 == 0
