# Two commands matter to a newcomer: `make up` and `make test`.

# The first that runs and fits: a version manager's stand-in can be there and still not run.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install up test check docs reference browser metrics witness fuzz bench bench-governance bench-ledger bench-rules bench-pins bench-codemode conformance matrix bench-sandbox bench-resilience bench-evidence bench-durability bench-evidence-flow bench-results bench-isolation bench-egress bench-traces bench-analytics starlark bench-identity bench-upstream-tokens bench-sweep

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

# Most tests wait more than they compute, so there are more workers than cores; 0 is none beside
# pytest itself. What shares a gateway goes to one worker (tests/harness/worker_groups.py).
WORKERS ?= 3
ON_A_GATEWAY := tests/docs/test_running_samples.py
SIDE_BY_SIDE := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

test: $(INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --ignore=tests/browser --ignore=tests/metrics --ignore=tests/witness $(ARGS)

# The pages people see, in the system's Chromium; what it shows is kept in build/screenshots.
browser: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m harness.packages.debian chromium
	$(BIN)/python -m pytest tests/browser $(ARGS)

# A real Prometheus scrapes every service, and answers what the dashboard for it asks.
metrics: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m harness.packages.debian prometheus
	$(BIN)/python -m pytest tests/metrics $(ARGS)

# A witness of the transparency network's own hands cosigns our logs; it needs Go and ssh-agent.
LITEWITNESS := filippo.io/torchwood/cmd/litewitness@v0.9.0
witness: $(INSTALLED)
	test -x build/bin/litewitness || GOBIN=$(CURDIR)/build/bin go install $(LITEWITNESS)
	$(BIN)/python -m pytest tests/witness $(ARGS)

# Broken requests to every endpoint, for so long; the seed is printed: ARGS="--seconds 600 --seed 7".
fuzz: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m fuzz.run $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) --ignore=$(ON_A_GATEWAY) tests/unit tests/contract tests/architecture tests/docs

# The documentation as a site in build/docs. A dead link or a page outside of the navigation fails.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

# Write the generated pages of docs/reference from the code.
reference: $(INSTALLED)
	PYTHONPATH=tools $(BIN)/python -m reference

# RULES=100 declares so many Cedar rules, some of which read the measured tool's arguments.
RULES ?= 0
bench: $(INSTALLED)
	$(BIN)/python bench/run.py --rules '$(RULES)' $(ARGS)

# What one decision costs with 100 rules, beside the engine asked about all of them; and the
# whole call path with them and without, in turn.
bench-rules: $(INSTALLED)
	$(BIN)/python bench/rules.py
	$(BIN)/python bench/rules_spine.py $(ARGS)

# Revocation to refusal over three replicas, and ten thousand keys over 500 tools.
bench-governance: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/governance.py $(ARGS)

# What a model reads with every definition and in code mode: 508 tools, scripted agents.
# ARGS="--tools FILE… --tasks FILE…" takes a published benchmark's instead.
bench-codemode: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/codemode.py $(ARGS)

# A hundred thousand reservations by 64 racing clients while policy and Valkey are killed.
bench-ledger: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python bench/ledger.py $(ARGS)

# What the sweeper's look-up of intents costs; ARGS=1000000 reads so many.
bench-sweep: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python bench/sweep.py $(ARGS)

# The public conformance suite; LEG=passthrough SCENARIO=tools-list narrows it.
conformance: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m conformance.run --leg '$(LEG)' --scenario '$(SCENARIO)' $(ARGS)

# Clients of other hands, each in its own environment, against servers of every family.
matrix: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m matrix.run --client '$(CLIENT)' --upstream '$(UPSTREAM)' $(ARGS)

# Ten thousand changed definitions through a whole gateway: none may be listed or called.
bench-pins: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/pins.py $(ARGS)

# One bad upstream of ten, and three times too many calls: what the others notice.
bench-resilience: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/resilience.py $(ARGS)

# The verdict on a million sealed events, offline.
bench-evidence: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/evidence.py $(ARGS)

# Every question of the dashboards over ten million events.
bench-analytics: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/analytics.py $(ARGS)

# Every part of a gateway killed twenty times under 200 calls a second: about a quarter of an hour.
bench-durability: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/durability.py $(ARGS)

# Events from a call to a row: how many a second, how soon, what they cost, ClickHouse away.
bench-evidence-flow: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/evidence_flow.py $(ARGS)

# What a result of 200 MB costs the executor's memory, over HTTP and stdio.
bench-results: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/results.py $(ARGS)

# A hundred servers on stdio of which five are used, and two hundred kills: what is left of them.
bench-isolation: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/isolation.py $(ARGS)

# Hundreds of spellings of this machine's own address at every place that takes a URL.
bench-egress: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/egress.py

# What tracing costs a call that is not recorded, and what a span costs that is.
bench-traces: $(INSTALLED)
	PYTHONPATH=bench $(BIN)/python bench/traces.py $(ARGS)

# Who holds an access token, looked up at the edge: microseconds of each request.
bench-identity: $(INSTALLED)
	$(BIN)/python bench/identity.py $(ARGS)

# What a token for a server costs each call; a thousand that end together.
bench-upstream-tokens: $(INSTALLED)
	PYTHONPATH=tests:bench $(BIN)/python bench/upstream_tokens.py $(ARGS)

# Hostile programs, forbidden system calls, forged messages; and what a run costs.
bench-sandbox: $(INSTALLED)
	PYTHONPATH=bench $(BIN)/python bench/sandbox.py $(ARGS)

# The language's public test files, SUITE=DIRECTORY, as programs in the sandbox.
starlark: $(INSTALLED)
	$(BIN)/python bench/starlark_language.py '$(SUITE)' $(ARGS)
