# Every target sets itself up: all it needs is Python >= 3.11 and make.
PYTHON ?= python3
UV := .tools/uv/bin/uv
VENV := .venv
STAMP := $(VENV)/.synced
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.DEFAULT_GOAL := setup

.PHONY: help setup demo test test-thorough test-all test-versions test-next-aiohttp mutation coverage chaos simulate web-soak login-test lint format identity release release-tools audit bench deploy-tools deploy-checks chart-docs chart-schema cluster-test dashboards docs-metrics pictures docs docs-serve contract architecture decisions observe docker-lint image image-test compose-test clean

# What there is to make: each target, and the first sentence above it.
help:
	@awk '/^# /{text=text (text==""?"":" ") substr($$0,3)} /^[a-z][a-z-]*:/{split($$1,name,":"); if (text!="") {sub(/[.:;] .*/,".",text); printf "make %-18s %s\n", name[1], text}} !/^# /{text=""}' Makefile

# The three packages, editable, in .venv.
setup: $(STAMP)

$(UV): release/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Flagpost needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement release/uv.txt
	@touch $@

$(STAMP): $(UV) uv.lock pyproject.toml schemas/pyproject.toml publisher/pyproject.toml consumer/pyproject.toml
	$(UV) sync --locked --all-packages --all-extras --python $(PYTHON) --no-python-downloads
	@touch $(STAMP)

# The whole path on this machine, with nothing to install.
demo: setup
	$(VENV)/bin/flagpost demo

# The order of the tests and the examples of the properties come of one number: SEED=… repeats a run's.
ifndef SEED
SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
endif
SEEDED = --dist worksteal --randomly-seed=$(SEED) --hypothesis-seed=$(SEED)
# The tests start hundreds of processes: each would compile all that it imports where the environment forbids bytecode.
BYTECODE = PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX="$(CURDIR)/.cache/bytecode"
PYTEST = $(BYTECODE) $(VENV)/bin/python -m pytest
QUICK = $(SEEDED) -n 3 -m "not thorough" --hypothesis-profile=tenth

# In minutes: all tests but the thorough ones, and the properties with a tenth of their examples.
# ARGS="-n 0 -s tests/unit" runs a part and shows all.
test: deploy-tools
	$(PYTEST) $(QUICK) $(ARGS)

# What `make test` leaves: the thorough tests, and the properties with all their examples. They wait more than they work.
test-thorough: deploy-tools
	$(PYTEST) $(SEEDED) -n 4 -m "thorough or hypothesis" $(ARGS)

# All tests, each once; first those that fail soon.
test-all: test test-thorough

VERSIONS ?= 3.11 3.12 3.13 3.14 lowest
# `make test` on each Python that is supported and that this machine has, and once with the oldest versions of the
# dependencies that are allowed; VERSIONS="3.13 lowest" takes these.
test-versions: deploy-tools
	$(BYTECODE) $(VENV)/bin/python tests/python_versions.py "$(VERSIONS)" $(QUICK) $(ARGS)

AIOHTTP ?= aiohttp

# The contract of the HTTP adapter on another aiohttp than the locked one: the newest that there is, also before its
# release; AIOHTTP="aiohttp==3.14.0" tries that one.
test-next-aiohttp: setup
	$(VENV)/bin/python tests/contract/next_aiohttp.py "$(AIOHTTP)" $(ARGS)

# The long form of tests/chaos: an hour and a half, of which the soak takes SOAK_MINUTES (30). CHAOS_SEED=… repeats a
# run; ARGS="-k kill_9" runs a part, ARGS="-k test_soak" the soak alone. SOAK_LOGS keeps the members' logs.
chaos: setup
	CHAOS=long $(PYTEST) -s tests/chaos $(ARGS)
	$(VENV)/bin/python tests/chaos/fuzz_records.py --records 100000

# `flagpost web` under load and through restarts of the broker, for an hour: its numbers must be reconcile's.
# ARGS="--minutes 10 --every 120 --seed 7" is a shorter run, or one again.
web-soak: setup
	$(VENV)/bin/python tests/chaos/web_soak.py $(ARGS)

# The page behind the real oauth2-proxy, with the options of docs/web.md, which Go builds the first time.
login-test: setup
	$(PYTEST) -v tests/login/behind_oauth2_proxy.py $(ARGS)

SEEDS ?= 10000
FIRST ?= 0
# The whole consumer in simulated minutes: SEEDS (10000) of them from FIRST (0) on, with a process for each core; less
# than an hour. SEED=… prints the history of one. tests/simulation tells what is simulated.
simulate: setup
	PYTHONPATH=tests $(VENV)/bin/python -m simulation $(if $(filter command environment,$(origin SEED)),--seed $(SEED),--seeds $(SEEDS) --first $(FIRST))

# What proves the tests (docs/testing.md), in an environment of its own.
.tools/proof/.synced: uv.lock | $(STAMP)
	UV_PROJECT_ENVIRONMENT=$(@D) $(UV) sync --quiet --locked --all-packages --all-extras --group proof --python $(VENV)/bin/python
	@touch $@

# Small changes to the core, of which a test must notice each (docs/testing.md). ARGS="--only pendo" takes one
# room, ARGS="--only pendo --again" what the last run of it did not kill, ARGS=--report says what the last runs found.
mutation: .tools/proof/.synced
	PYTHONPATH=tests .tools/proof/bin/python -m mutation $(ARGS)

# Every line and every branch of the core is run by its unit tests and its quick property tests.
coverage: .tools/proof/.synced
	PYTHONPATH=tests .tools/proof/bin/python -m coverage run -m pytest -q -p no:xdist --hypothesis-profile quick -m "not thorough" \
		$$(PYTHONPATH=tests .tools/proof/bin/python -m mutation.rooms) $(ARGS)
	.tools/proof/bin/python -m coverage report

# Format, lint and types, looked at.
lint: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Format and what ruff can fix, written.
format: setup
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# Version and home of pyproject.toml, and LICENSE and NOTICE, carried to every place that repeats them.
identity: $(UV)
	$(PYTHON) -m release.identity
	$(UV) lock --quiet

# What builds and looks at a release, from the lock, and so with hashes; in an environment of its own.
release-tools: .tools/release/.synced

.tools/release/.synced: uv.lock | $(STAMP)
	UV_PROJECT_ENVIRONMENT=$(@D) $(UV) sync --quiet --locked --only-group release --python $(VENV)/bin/python
	@touch $@

# What a release has, in dist/release. It is wheels, sdists, chart, image, inventory and provenance of the commit, tried away from the checkout
# (docs/releasing.md). ARGS=--to-publish refuses what may not be published.
release: release-tools
	$(VENV)/bin/python -m release $(ARGS)

# Known advisories of everything that the lock has, and of the oldest versions that the members allow.
audit: release-tools
	$(VENV)/bin/python -m release.audit $(ARGS)

# Every benchmark, an hour in all, figures in benchmarks/results.json; ARGS="--quick" shows that they run, and
# ARGS="--only duplicates" takes one.
bench: setup
	$(VENV)/bin/python benchmarks/all.py $(ARGS)

# What the chart's tests need: Helm's engine, the API's schemas and checkov; that is what the tests of the chart need, besides what all tests need.
deploy-tools: setup .tools/checkov/.installed
	$(UV) sync --quiet --locked --all-packages --all-extras --group deploy

.tools/checkov/.installed: tests/helm/checkov.txt $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) --no-python-downloads $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --requirements tests/helm/checkov.txt
	@touch $@

# The chart, checked. It is rendered, linted, and held to the API's schemas, to Flagpost's own settings and to checkov.
deploy-checks: deploy-tools
	$(PYTEST) -n 2 --dist worksteal tests/helm $(ARGS)

# The table of values in the chart's README, of the comments in its values.yaml.
chart-docs: setup
	PYTHONPATH=tests $(VENV)/bin/python tests/helm/values_table.py

# What the chart's schema says of settings and variables, of the programs' own models.
chart-schema: setup
	PYTHONPATH=helm $(VENV)/bin/python -m settings_schema

# The chart on a real Kubernetes API server, which takes minutes to build the first time (Go is needed).
cluster-test: setup
	$(PYTEST) -v tests/cluster/on_api_server.py $(ARGS)

# Grafana's dashboards, written anew from helm/dashboards.
dashboards: setup
	PYTHONPATH=helm $(VENV)/bin/python -m dashboards

# docs/metrics.md, of what the programs tell Prometheus.
docs-metrics: setup
	PYTHONPATH=tests:helm $(VENV)/bin/python -m observability.metrics_page

# The drawings of the rooms and their imports in docs/architecture.md, of the imports themselves.
architecture: setup
	$(VENV)/bin/python -m documentation.rooms

# The tables of docs/contract.md and the gateway's OpenAPI document, of the programs' own models and commands.
contract: setup
	$(VENV)/bin/python -m documentation.contract

# docs/decisions/README.md, of the records beside it.
decisions:
	$(PYTHON) -m documentation.decisions

# The pictures of docs/: the page in Chromium over a real Kafka, the demo on a terminal.
pictures: deploy-tools
	WEB_PICTURES=docs/pictures $(PYTEST) -n 0 tests/integration/test_web_browser.py -k axe
	$(VENV)/bin/python -m documentation.demo_picture

# The site of docs/ in dist/site, with search and the packages' reference; any warning fails it (mkdocs.yml).
docs: .tools/docs/.synced
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(dir $<)bin/mkdocs build $(ARGS)

# The same, at http://127.0.0.1:8000, made anew when a page changes.
docs-serve: .tools/docs/.synced
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(dir $<)bin/mkdocs serve $(ARGS)

.tools/docs/.synced: uv.lock | $(STAMP)
	UV_PROJECT_ENVIRONMENT=$(@D) $(UV) sync --quiet --locked --only-group docs --python $(VENV)/bin/python
	@touch $@

# A real Prometheus over everything under load: what each query of each dashboard gave, and an alert from start to end.
observe: setup
	OBSERVE=long $(PYTEST) -s tests/observability/test_real_prometheus.py $(ARGS)

# hadolint and Docker Compose, which need no Docker engine to say what is wrong with a file.
.tools/docker: tests/image/requirements.txt $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) --no-python-downloads $@
	$(UV) pip install --quiet --python $@/bin/python --requirements tests/image/requirements.txt
	@touch $@

# The Dockerfiles and docker-compose.yml, looked at.
docker-lint: .tools/docker
	.tools/docker/bin/hadolint Dockerfile tests/compose/*.Dockerfile
	.tools/docker/bin/docker-compose --file docker-compose.yml config --quiet

# The image, by the Docker engine of this machine.
image:
	docker build --tag flagpost --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .

# The image on a local base, and docker-compose.yml with local images: on a Docker engine of the tests' own, which
# needs root and Debian's docker.io and debootstrap. The first run takes five minutes, later ones one.
image-test: setup
	$(PYTEST) -v tests/image/image_on_engine.py $(ARGS)

# docker-compose.yml with local images, on a Docker engine of the tests' own.
compose-test: setup .tools/docker
	$(PYTEST) -v tests/compose/compose_on_engine.py $(ARGS)

# Everything that the other targets have made, removed.
clean:
	rm -rf $(VENV) .tools .cache dist
