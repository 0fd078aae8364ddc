# Every target sets up first; a set-up that stands costs a fraction of a second.
PYTHON ?= python3
RUN := .venv/bin/python

# how long a waiting thread spins: labs/engine/__init__.py
export GOMP_SPINCOUNT ?= 1000
export OMP_WAIT_POLICY ?= active
# with it every process would compile all that it imports
unexport PYTHONDONTWRITEBYTECODE

.PHONY: lab run test check lock lessons stop setup
lab: setup ## JupyterLab on lesson 00
	@$(RUN) -m labs.cli lab $(ARGS)

run: setup ## every lesson without a browser, and an HTML report
	@$(RUN) -m labs.cli run $(ARGS)

test: setup ## everything CI runs
	@$(PYTHON) bootstrap.py --browser --prometheus --quantize --kernels --triton --openvino --aiperf --gateway
	@$(RUN) -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=20 $(ARGS)

check: setup ## seconds, not minutes: style, and learner notebooks equal their source
	@$(RUN) -m ruff check && $(RUN) -m ruff format --check && $(RUN) -m labs.cli build --check

lessons: setup ## make the notebooks again from solutions/*.py (executes them)
	@$(RUN) -m labs.cli build --execute $(ARGS)

stop: setup ## stop every server that a lesson left running
	@$(RUN) -m labs.cli stop

LOCK := uv pip compile --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes --no-annotate \
  --no-header

lock: ## resolve requirements/*.in again
	$(LOCK) $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu) \
	  --excludes requirements/excludes.txt requirements/course.in -o requirements/course.lock
	set -e; for name in quantize openvino; do $(LOCK) --excludes requirements/excludes.txt \
	  --excludes requirements/shared.txt requirements/$$name.in -o requirements/$$name.lock; done
	set -e; for name in kernels aiperf gateway; do $(LOCK) --excludes requirements/unlicensed.txt requirements/$$name.in -o requirements/$$name.lock; done
	uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_35 --generate-hashes --no-annotate \
	  --no-header --no-deps requirements/triton.in -o requirements/triton.lock
	uv pip compile --generate-hashes --no-annotate --no-header requirements/uv.in -o requirements/uv.lock

setup:
	@$(PYTHON) bootstrap.py
