# make sweep | make cluster-up | make test; each makes .venv with pinned versions if it is missing
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c cluster/constraints.txt
# threads of one process wait asleep, so that processes side by side do not take the cores from each other
export OMP_WAIT_POLICY := PASSIVE

EXPERIMENT ?= experiments/builtin_clip.yaml
ARGS ?=
# of make cluster-up: workers beside the head, CPUs of each (default: shared evenly), where results go, where to listen
NODES ?= 2
CPUS ?=
STORE ?= results
# not from the environment, where many a shell and container has a HOST of its own
HOST := 127.0.0.1
# a Ray cluster YAML, for example cluster/aws.yaml; empty is this machine
CLUSTER ?=
JOB ?=
ON_CLUSTER = $(VENV)/bin/python -m cluster
WHICH = $(if $(CLUSTER),--cluster $(CLUSTER))

.PHONY: sweep cluster-up cluster-status submit logs cluster-down test test-all chaos lint bench clean

sweep: $(READY)
	@$(VENV)/bin/python -m upop_ray.sweep $(EXPERIMENT) $(ARGS)

cluster-up: $(READY)
	@$(ON_CLUSTER) up $(WHICH) --nodes $(NODES) $(if $(CPUS),--cpus $(CPUS)) --store $(STORE) --host $(HOST)

cluster-status: $(READY)
	@$(ON_CLUSTER) status $(WHICH)

submit: $(READY)
	@$(ON_CLUSTER) submit $(WHICH) $(EXPERIMENT) $(ARGS)

logs: $(READY)
	@$(ON_CLUSTER) logs $(WHICH) $(JOB)

cluster-down: $(READY)
	@$(ON_CLUSTER) down $(WHICH)

test: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile

test-all: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile -m "not gpu and not chaos"

# kills workers, nodes, drivers and heads of a local cluster in the middle of sweeps
chaos: lint
	$(VENV)/bin/python -m pytest -q -s -m chaos tests/chaos

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(READY)
	$(VENV)/bin/python -m tests.bench

$(READY): pyproject.toml cluster/constraints.txt
	@echo "setting up $(VENV) (about three minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.13.0
	@$(PIP) -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
