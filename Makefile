# make install · make demo · make test · make test-golden · make test-all · make lint · make coverage · make docs
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
# A module is compiled when it is first imported; most of what these packages hold never is.
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check --no-compile
INSTALLED := $(VENV)/.installed
EDITABLE := $(VENV)/.editable
# Where this is set, every process would compile torch and the rest anew, since nothing was compiled when it was installed.
export PYTHONDONTWRITEBYTECODE :=
JOBS ?= 2
# Whole files go to one process each, since their tests share stores that take long to make; the longest come first.
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: install demo test test-golden test-all lint coverage docs

install: $(EDITABLE)

# torch first and by its exact pin: a range would bring another build. The lock has everything else. triton and torchaudio
# are there only because whisper and fairseq ask for them; triton's pin is that of torch's CUDA build.
$(INSTALLED): requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch==2.13.0
	$(PIP) --no-deps -r requirements.txt
	$(PY) -W ignore -m compileall -q $(VENV)/lib/python3*/site-packages/fairseq  # it warns of its own lines when it is compiled
	touch $@

# A changed setup.cfg, such as a new entry point, takes this step alone. It ends with an error if any two packages disagree.
$(EDITABLE): $(INSTALLED) setup.cfg
	rm -rf concord_av.egg-info  # one left by other tools would hide new entry points
	$(PIP) --no-deps --no-build-isolation --editable .
	$(VENV)/bin/pip check
	$(PY) -m teachers.fetch
	touch $@

demo: install
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH $(PY) -m pipelines.demo

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# mypy has one thread, so it goes beside the golden tests.
test: install
	+$(MAKE) -j 2 --output-sync=target lint test-golden
	$(PYTEST) -m "not golden and not slow" --durations 10

# Comparisons with the published implementations. Where the reference data is there, a skip is a failure.
test-golden: install
	$(PYTEST) -m golden --golden $$(grep -rl mark.golden tests --include="test_*.py")

test-all: install
	$(PYTEST)

# Of the code that runs in the tests' own processes; what Ray's workers and other commands run is not counted.
coverage: install
	$(PYTEST) -m "not slow" --cov concord --cov store --cov teachers --cov pipelines --cov student --cov-report term:skip-covered

# The documentation as a site in site/; a broken link ends the build.
docs: install
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
