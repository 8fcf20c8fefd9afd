# Everything works without an active environment: .venv is made on first use, and again when its lock file changes.
# An interpreter of your own: make train PYTHON=/path/to/python. Further flags of the trainer: make train ARGS=--steps=100
SHELL := /bin/bash
# Also with make -f, from a folder with a test/ of its own.
SELF := $(strip $(MAKEFILE_LIST))
RUN := set -euo pipefail; source "$$(dirname "$$(readlink -f "$(SELF)")")/test/common.sh";

.SILENT:
.PHONY: help train quick performance test lint wheel clean

help:
	echo 'make train        the full job: 8000 steps, then pictures, checkpoints and results in output/0/'
	echo 'make quick        the same in small, under two minutes'
	echo 'make performance  trains only, to see the speed'
	echo 'make test         all tests, on the main interpreter and on Python 3.7 with TensorFlow 1.15'
	echo 'make lint         ruff, mypy, and shellcheck where there is one'
	echo 'make wheel        builds dist/gitloss-*.whl, and tests it on both interpreters in environments that have nothing else'
	echo 'make clean        removes what tools left behind; output/ and the environments stay'

train:
	$(RUN) train flags/full.cfg $(ARGS)

quick performance:
	$(RUN) train flags/$@.cfg $(ARGS)

test:
	$(RUN) run_tests $(PYTEST_ARGS)

lint:
	$(RUN) run_lint

wheel:
	$(RUN) run_wheel

clean:
	$(RUN) cd "$$ROOT"; rm -rf build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache; \
	find . -name '.venv*' -prune -o -path ./output -prune -o -name __pycache__ -prune -exec rm -rf {} +
