"""The shared library: every module serves at least two services, or there is a reason."""

from collections import defaultdict
from functools import cache

import grimp
import pytest

COMMON = "toolbus_common"
USERS = (
    "toolbus_ingress", "toolbus_policy", "toolbus_executor", "toolbus_codemode", "toolbus_audit",
    "toolbus_oauth", "toolbus_cli",
)  # fmt: skip
PROCESS = "the process of every service, which the CLI starts"
LAZY = "imported by `service.process` if something is exported"
BUS = "describes the bus for all services; operators alone apply it"
# Modules with one user that stay in common, and the reason.
STAYING = {
    "egress.httpx_adapter": "imports httpx, which only common may import",
    "nats.provision": BUS,
    "nats.snapshots.consumer_pause": "imports the NATS client, which only common may import",
    "plugins.python.api": "imported by plugins, which are packages of others",
    "plugins.python.process": "imports the NATS client, which only common may import",
    "observability.logging": PROCESS,
    "observability.otlp_env": PROCESS,
    "observability.otlp_metrics": LAZY,
    "observability.otlp_resource": LAZY,
    "observability.otlp_session": LAZY,
    "observability.tracing.exporter": LAZY,
    "service.health": PROCESS,
    "service.process": PROCESS,
}


@cache
def users() -> dict[str, frozenset[str]]:
    """Return the packages that import each module of common, also through other such modules."""
    graph = grimp.build_graph(COMMON, *USERS, exclude_type_checking_imports=True, cache_dir=None)
    importers = {
        module: graph.find_modules_that_directly_import(module)
        for module in graph.modules
        if module.startswith(f"{COMMON}.")
    }
    found: defaultdict[str, set[str]] = defaultdict(set)
    before = -1
    while before < (before := sum(map(len, found.values()))):
        for module, modules in importers.items():
            for each in modules:
                found[module] |= found[each] if each in importers else {each.partition(".")[0]}
    return {module: frozenset(found[module]) for module in importers}


def alone() -> dict[str, frozenset[str]]:
    """Return the modules with at most one user; the purpose lines of folders do not count."""
    packages = {module.rpartition(".")[0] for module in users()}
    return {
        module.removeprefix(f"{COMMON}."): found
        for module, found in users().items()
        if len(found) <= 1 and module not in packages
    }


def test_what_one_service_alone_uses_is_in_that_service() -> None:
    assert {name: found for name, found in alone().items() if name not in STAYING} == {}


@pytest.mark.parametrize("name", STAYING)
def test_every_exception_is_still_needed(name: str) -> None:
    assert len(alone()[name]) == (STAYING[name] != LAZY)
