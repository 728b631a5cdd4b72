# make install · make demo · make test · make test-golden · make test-all · make lint
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-golden test-all lint

install: $(INSTALLED)

# torch first and by its exact pin: a range would bring another build. The lock has everything else, without triton and
# torchaudio, which nothing here needs.
$(INSTALLED): requirements.txt setup.cfg
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch==2.13.0
	$(PIP) --no-deps -r requirements.txt
	rm -rf concord_av.egg-info  # one left by other tools would hide new entry points
	$(PIP) --no-deps --no-build-isolation --editable .
	$(PY) -m teachers.fetch
	touch $@

demo: install
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH $(PY) -m pipelines.demo

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint test-golden
	$(PY) -m pytest -m "not golden and not slow"

# Comparisons with the published implementations. Where the reference data is there, a skip is a failure.
test-golden: install
	$(PY) -m pytest -m golden --golden

test-all: install
	$(PY) -m pytest
