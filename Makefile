# make sweep | make test; both make .venv with pinned versions if it is missing
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c cluster/constraints.txt
# threads of one process wait asleep, so that processes side by side do not take the cores from each other
export OMP_WAIT_POLICY := PASSIVE

EXPERIMENT ?= experiments/builtin_clip.yaml
ARGS ?=

.PHONY: sweep test test-all lint bench clean

sweep: $(READY)
	@$(VENV)/bin/python -m upop_ray.sweep $(EXPERIMENT) $(ARGS)

test: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile

test-all: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile -m "not gpu"

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
