# Every target sets itself up: all it needs is Python >= 3.11 and make.
PYTHON ?= python3
UV := .tools/uv/bin/uv
VENV := .venv
STAMP := $(VENV)/.synced
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: setup demo test test-next-aiohttp chaos lint format identity release release-tools audit bench deploy-tools deploy-checks chart-docs chart-schema cluster-test dashboards docs-metrics observe docker-lint image image-test compose-test clean

setup: $(STAMP)

$(UV): release/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Flagpost needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement release/uv.txt
	@touch $@

$(STAMP): $(UV) uv.lock pyproject.toml schemas/pyproject.toml publisher/pyproject.toml consumer/pyproject.toml
	$(UV) sync --locked --all-packages --all-extras --python $(PYTHON) --no-python-downloads
	@touch $(STAMP)

demo: setup
	$(VENV)/bin/flagpost demo

# Most tests wait more than they work, so two run at a time; ARGS="-n 0 -s tests/unit" runs a part and shows all.
test: deploy-tools
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

# The contract of the HTTP adapter on another aiohttp than the locked one: the newest that there is, also before its
# release; AIOHTTP="aiohttp==3.14.0" tries that one.
AIOHTTP ?= aiohttp
test-next-aiohttp: setup
	$(VENV)/bin/python tests/contract/next_aiohttp.py "$(AIOHTTP)" $(ARGS)

# The long form of tests/chaos: an hour and a half, of which the soak takes SOAK_MINUTES (30). CHAOS_SEED=… repeats a
# run; ARGS="-k kill_9" runs a part, ARGS="-k test_soak" the soak alone. SOAK_LOGS keeps the members' logs.
chaos: setup
	CHAOS=long $(VENV)/bin/python -m pytest -s tests/chaos $(ARGS)
	$(VENV)/bin/python tests/chaos/fuzz_records.py --records 100000

lint: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

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

# dist/release: wheels, sdists, chart, image, inventory and provenance of the commit, tried away from the checkout
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

# Helm's engine, the API's schemas and checkov: what the tests of the chart need, besides what all tests need.
deploy-tools: setup .tools/checkov/.installed
	$(UV) sync --quiet --locked --all-packages --all-extras --group deploy

.tools/checkov/.installed: tests/helm/checkov.txt $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) --no-python-downloads $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --requirements tests/helm/checkov.txt
	@touch $@

# The chart: rendered, linted, and held to the API's schemas, to Flagpost's own settings and to checkov.
deploy-checks: deploy-tools
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal tests/helm $(ARGS)

# The table of values in the chart's README, of the comments in its values.yaml.
chart-docs: setup
	PYTHONPATH=tests $(VENV)/bin/python tests/helm/values_table.py

# What the chart's schema says of settings and variables, of the programs' own models.
chart-schema: setup
	PYTHONPATH=helm $(VENV)/bin/python -m settings_schema

# The chart on a real Kubernetes API server, which takes minutes to build the first time (Go is needed).
cluster-test: setup
	$(VENV)/bin/python -m pytest -v tests/cluster/on_api_server.py $(ARGS)

# Grafana's dashboards, written anew from helm/dashboards.
dashboards: setup
	PYTHONPATH=helm $(VENV)/bin/python -m dashboards

# docs/metrics.md, of what the programs tell Prometheus.
docs-metrics: setup
	PYTHONPATH=tests:helm $(VENV)/bin/python -m observability.metrics_page

# A real Prometheus over everything under load: what each query of each dashboard gave, and an alert from start to end.
observe: setup
	OBSERVE=long $(VENV)/bin/python -m pytest -s tests/observability/test_real_prometheus.py $(ARGS)

# hadolint and Docker Compose, which need no Docker engine to say what is wrong with a file.
.tools/docker: tests/image/requirements.txt $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) --no-python-downloads $@
	$(UV) pip install --quiet --python $@/bin/python --requirements tests/image/requirements.txt
	@touch $@

docker-lint: .tools/docker
	.tools/docker/bin/hadolint Dockerfile tests/compose/*.Dockerfile
	.tools/docker/bin/docker-compose --file docker-compose.yml config --quiet

# The image, by the Docker engine of this machine.
image:
	docker build --tag flagpost --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .

# The image on a local base, and docker-compose.yml with local images: on a Docker engine of the tests' own, which
# needs root and Debian's docker.io and debootstrap. The first run takes five minutes, later ones one.
image-test: setup
	$(VENV)/bin/python -m pytest -v tests/image/image_on_engine.py $(ARGS)

compose-test: setup .tools/docker
	$(VENV)/bin/python -m pytest -v tests/compose/compose_on_engine.py $(ARGS)

clean:
	rm -rf $(VENV) .tools .cache dist
