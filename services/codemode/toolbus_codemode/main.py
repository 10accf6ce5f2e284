"""The codemode service: catalogue tools, and programs that call tools.

subscribes  calls of the built-in server `toolbus` (`tb.run.toolbus`), `tb.cancel.*`;
            buckets `tb_config`, `tb_catalogue` and `tb_tokens`
publishes   `call.completed`, `call.failed`, `call.extended`, `context.spent`, `context.measured`,
            `run.started`, `run.completed`, `run.failed`, `guard.failed`; `tb.call.<server>` for the
            calls of programs and runs
queries     executor for the guards that ask another service
owns        the entry of the built-in server in `tb_catalogue`, its outcomes in `tb_outcomes`, the
            object store `tb_results`, and the bucket `tb_agent_runs`
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from toolbus_codemode.agent.runs import AgentRuns
from toolbus_codemode.catalog.builtin_tools import own_listing
from toolbus_codemode.catalog.catalog import Catalogue
from toolbus_codemode.handler import ProgramHandler
from toolbus_codemode.programs.runner import ENGINES, Programs, default_limits
from toolbus_codemode.results.result_store import Results
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings
from toolbus_codemode.settings import Settings
from toolbus_codemode.tokens.context_savings import ContextMeter
from toolbus_common.access.config_snapshot import ConfigProjection, ConfigView
from toolbus_common.calls.bucket_sizes import follow_sizes
from toolbus_common.calls.outcome_store import OutcomeStore
from toolbus_common.concurrency import in_background
from toolbus_common.contracts import CallAdmitted, CallCancelled, OwnRunsRequest, RunsRequest
from toolbus_common.guards.service_inspector import InspectorProvider
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.model_api.embeddings import EmbeddingModel, NoModelError
from toolbus_common.nats.object_store import Objects
from toolbus_common.nats.topology import AGENT_RUNS, CATALOGUE, CONFIG, OUTCOMES, RESULTS, TOKENS
from toolbus_common.privacy.service_keys import use_person_keys
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service

log = logging.getLogger(__name__)

# Seconds until the engines start, unless a program arrives earlier. Other services in the process
# use the processor to become ready first.
START_DELAY = 3.0


def build(process: ProcessContext) -> Service:
    """Return the composed service. It opens connections only when it runs."""
    settings = Settings()
    service = Service("codemode", settings, process)
    use_person_keys(service)
    directory = _directory(service)
    runs = AgentRuns(service, directory)
    _serve_queries(service, runs)
    meaning = _model(settings.search_model)
    catalogue = Catalogue(directory, meaning)
    service.watch_bucket(CATALOGUE)(catalogue.apply_change)

    @asynccontextmanager
    async def served() -> AsyncIterator[None]:
        sandbox = Sandbox(SandboxSettings(without_seccomp=settings.without_seccomp))
        later = asyncio.get_running_loop().call_later(START_DELAY, sandbox.begin)
        if settings.sandbox_on_demand:
            later.cancel()
        guards = InspectorProvider(service, lambda: directory.now.configuration)
        service.details = lambda: (
            guards.plugin_details()
            | {
                "engines": [e for e in ENGINES if e not in sandbox.unavailable],
                "search": "words and embeddings" if meaning else "words",
            }
        )
        usual = default_limits(settings.program_seconds, settings.program_calls)
        results = Results(lambda: Objects.opened(service.bus, RESULTS))
        programs = Programs(service, directory, sandbox, results, usual)
        spending = ContextMeter(service.events.publish)
        outcomes = await _opened(service, directory)
        runs.open(await service.bucket(AGENT_RUNS))
        handler = ProgramHandler(service, directory, catalogue, programs, spending, outcomes, runs)
        handler.checked.inspector = lambda: guards.inspector
        await (await service.bucket(CATALOGUE)).put(BUILT_IN, own_listing().encode())
        await service.calls.serve(CallAdmitted, BUILT_IN, handler.run, "codemode")
        await service.bus.subscribe(
            f"{CallCancelled.SUBJECT}.*",
            lambda data, *_: handler.cancel(CallCancelled.decode(data).call_id),
        )
        try:
            sizes = follow_sizes(service.bus, AGENT_RUNS, runs.quota.sizes.apply_change)
            async with spending.counting(), in_background(sizes):
                yield
        finally:
            later.cancel()
            await sandbox.close()

    service.add_resource(served)
    return service


def _serve_queries(service: Service, runs: AgentRuns) -> None:
    """Answer the queries about runs of agent mode."""
    service.broker.subscriber(
        RunsRequest.SUBJECT, queue=service.name, max_workers=RunsRequest.AT_ONCE
    )(runs.answer)
    service.broker.subscriber(
        OwnRunsRequest.SUBJECT, queue=service.name, max_workers=OwnRunsRequest.AT_ONCE
    )(runs.answer_own)


def _directory(service: Service) -> ConfigView:
    directory = ConfigView(service.share_projection(CONFIG, ConfigProjection))
    service.watch_bucket(TOKENS)(directory.bearers.apply_change)
    return directory


async def _opened(service: Service, directory: ConfigView) -> OutcomeStore:
    """Open the outcome store, and the bucket in which new access tokens are looked up."""
    directory.bearers.open(await service.bucket(TOKENS))
    return OutcomeStore(await service.bucket(OUTCOMES), service.spawn)


def _model(where: str) -> EmbeddingModel | None:
    """Return the configured embedding model; if it is None, search uses words only."""
    if not where:
        return None
    try:
        return EmbeddingModel(where)
    except NoModelError as error:
        log.warning("search.no_model", extra={"reason": str(error)})
        return None
