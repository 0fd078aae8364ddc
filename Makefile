# Every target sets up first; a set-up that stands costs a fraction of a second.
PYTHON ?= python3
RUN := .venv/bin/python

# threads that wait give their core away soon: with a busy neighbour engines on a CPU are several times faster
export GOMP_SPINCOUNT ?= 2000

.PHONY: lab run test check lock lessons stop setup
lab: setup ## JupyterLab on lesson 00
	@$(RUN) -m labs.cli lab $(ARGS)

run: setup ## every lesson without a browser, and an HTML report
	@$(RUN) -m labs.cli run $(ARGS)

test: setup ## everything CI runs
	@$(PYTHON) bootstrap.py --browser --quantize --kernels --triton
	@$(RUN) -m pytest $(ARGS)

check: setup ## seconds, not minutes: style, and learner notebooks equal their source
	@$(RUN) -m ruff check && $(RUN) -m ruff format --check && $(RUN) -m labs.cli build --check

lessons: setup ## make the notebooks again from solutions/*.py (executes them)
	@$(RUN) -m labs.cli build --execute $(ARGS)

stop: setup ## stop every server that a lesson left running
	@$(RUN) -m labs.cli stop

lock: ## resolve requirements/*.in again
	uv pip compile --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes --no-annotate \
	  --no-header $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu) \
	  --excludes requirements/excludes.txt requirements/course.in -o requirements/course.lock
	uv pip compile --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes --no-annotate \
	  --no-header --excludes requirements/excludes.txt --excludes requirements/shared.txt requirements/quantize.in \
	  -o requirements/quantize.lock
	uv pip compile --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes --no-annotate \
	  --no-header requirements/kernels.in -o requirements/kernels.lock
	uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_35 --generate-hashes --no-annotate \
	  --no-header --no-deps requirements/triton.in -o requirements/triton.lock
	uv pip compile --generate-hashes --no-annotate --no-header requirements/uv.in -o requirements/uv.lock

setup:
	@$(PYTHON) bootstrap.py
