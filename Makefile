# make demo                 set everything up in .venv and run the main job
# make demo VIDEO=my.mp4    the same on a video of your own
# make test                 set everything up and run the tests
# make help                 the rest
.DEFAULT_GOAL := help
.PHONY: help install demo assets test test-long check format system serve ablation image-pins audit clean

# Without its bytecode cache PyTorch takes 20 s to import, every time.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?=
CORPUS ?= corpus
THUMOS14 ?=
JOBS ?= 1
VENV := .venv
RUN := $(VENV)/bin/python

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

install:  ## .venv with backtal and all that it needs; PYTHON=... chooses the interpreter
	@PYTHON="$(PYTHON)" tools/install

demo: install  ## a video in, timed segments out, through a real Triton; VIDEO=my.mp4 for yours
	@$(RUN) demo/run.py $(if $(VIDEO),--video "$(VIDEO)")

assets: install  ## the demo's checkpoint and features again, from nothing: about half an hour
	@$(RUN) demo/make.py

serve: install  ## the service alone, with the demo's repository, until Ctrl-C
	@$(RUN) demo/run.py --serve

test: install  ## the tests; TESTS="tests/unit -k name" for some of them
	@$(RUN) -m pytest -m "not long" $(TESTS)

test-long: install  ## soaks, floods, long fuzzing, the corpus anew; docs/long-tests.md says how it went
	@$(if $(TESTS),,rm -f docs/long-tests.md)
	@$(RUN) -m pytest -m long --figures docs/long-tests.md $(TESTS)

ablation: install  ## docs/ablation.md, for hours; CORPUS=folder, THUMOS14=folder, JOBS=2
	@mkdir -p var
	@$(RUN) -m backtal_training.ablation --state var/ablation.jsonl --to docs/ablation.md \
		--jobs $(JOBS) --features $(CORPUS)/features --clicks $(CORPUS)/clicks.txt \
		--ground-truth $(CORPUS)/ground_truth.json $(if $(THUMOS14),--thumos14 "$(THUMOS14)")

check: install  ## lint, format, types, which package may import which, and what audit asks once a day
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(RUN) -m deploy.audit --daily

format: install  ## put the code into its form
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

PINS := $(RUN) -m uv pip compile -q --system-certs --constraint constraints.txt --generate-hashes \
	--python-platform x86_64-manylinux_2_35 --no-header --no-annotate
image-pins: install  ## deploy/image/*.txt: what the images install, by hash, of constraints.txt
	@$(PINS) --python-version 3.11 --extra serving --extra s3 --extra tracing \
		-o deploy/image/embedded.txt pyproject.toml
	@$(PINS) --python-version 3.12 --extra client --extra s3 --extra tracing \
		-o deploy/image/triton.txt pyproject.toml deploy/image/triton.in
	@$(PINS) --python-version 3.11 --extra index --extra ray \
		-o deploy/image/index.txt pyproject.toml
	@$(PINS) --python-version 3.11 -o deploy/image/tools.txt deploy/image/tools.in

audit: install  ## known vulnerabilities of what the images install; it asks PyPI
	@$(RUN) -m deploy.audit

system:  ## as root, on Debian or Ubuntu: what some tests want and are skipped without
	@tools/system

clean:  ## remove .venv, what the demo wrote, and the caches
	@rm -rf $(VENV) var build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
