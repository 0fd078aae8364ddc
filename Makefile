# Every target sets up first; checking a finished set-up takes a fraction of a second.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python
CHECK := .venv/check/bin

# with this variable set, every process would compile all modules that it imports
unexport PYTHONDONTWRITEBYTECODE

.PHONY: lab run test check lock lessons stop setup
lab: setup ## JupyterLab on lesson 00
	@$(BIN)/engineroom lab $(ARGS)

run: setup ## every lesson without a browser, and an HTML report
	@$(BIN)/engineroom run $(ARGS)

test: setup ## everything CI runs
	@$(PYTHON) bootstrap.py --browser --prometheus --check --quantize --kernels --triton --openvino --aiperf --gateway --clients
	@$(RUN) -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=20 $(ARGS)

check: setup ## under a minute: all that needs no lesson to run; each check is a target of its own
	@$(PYTHON) bootstrap.py --check
	@$(MAKE) --no-print-directory -j 2 --output-sync $(CHECKS)

CHECKS := types style contracts dependencies habits notebooks
.PHONY: $(CHECKS)
types:
	@$(CHECK)/basedpyright
style:
	@$(CHECK)/ruff check && $(CHECK)/ruff format --check
contracts:
	@$(CHECK)/lint-imports
dependencies:
	@$(CHECK)/deptry engineroom && $(CHECK)/deptry . --non-dev-dependency-groups course,tools,test
habits:
	@$(RUN) -m pytest -q -p no:cacheprovider tests/setup/test_habits.py
notebooks:
	@$(BIN)/engineroom lessons --check

lessons: setup ## rebuild the notebooks from solutions/*.py (executes them)
	@$(BIN)/engineroom lessons --execute $(ARGS)

stop: setup ## stop every server that a lesson left running
	@$(BIN)/engineroom stop

UV := $(or $(shell command -v uv),.venv/uv/bin/uv)
COMPILE := $(UV) pip compile --python-version 3.11 --generate-hashes --no-annotate --no-header
LOCK := $(COMPILE) --python-platform x86_64-unknown-linux-gnu
# torch comes from a local folder of wheels if the environment names one, else from PyTorch's index
TORCH := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu)
GROUPS := --all-extras --group course --group tools --group test

lock: setup ## resolve pyproject.toml and requirements/*.in again
	$(LOCK) $(TORCH) --excludes requirements/excludes.txt $(GROUPS) pyproject.toml requirements/course.in \
	  -o requirements/course.lock
	set -e; for name in quantize openvino clients; do $(LOCK) --excludes requirements/excludes.txt \
	  --excludes requirements/shared.txt requirements/$$name.in -o requirements/$$name.lock; done
	set -e; for name in check kernels aiperf gateway; do $(LOCK) --excludes requirements/unlicensed.txt \
	  requirements/$$name.in -o requirements/$$name.lock; done
	$(COMPILE) --python-platform x86_64-manylinux_2_35 --no-deps requirements/triton.in -o requirements/triton.lock
	$(UV) pip compile --generate-hashes --no-annotate --no-header requirements/uv.in -o requirements/uv.lock

setup:
	@$(PYTHON) bootstrap.py
