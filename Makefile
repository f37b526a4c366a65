# Everything the project does, by name. Set-up happens by itself, in .venv, whenever the lock changes.

PYTHON ?= python3
JOBS ?= 2
PORT ?= 8000

BIN := .venv/bin
BOOK := $(BIN)/python -m scorebook
READY := .venv/ready

.DEFAULT_GOAL := book
.PHONY: book test check-site paper figures bench lint serve student pdf lock clean help setup

book: setup ## build the book: run the chapters that changed, then the site, in _build/html
	$(BOOK) run --jobs $(JOBS)
	$(BOOK) build

test: setup ## run the tests
	$(BIN)/python -m pytest --numprocesses $(JOBS)

check-site: book ## check the built site: links, alternative texts, offline, in a browser
	$(BOOK) check

figures: setup ## write _build/figures and compare the numbers with results/quick (UPDATE=1 commits them)
	$(BOOK) figures $(if $(UPDATE),--update)

paper: setup ## run the paper profile into results/paper (ONLY=03 DATA=mnist FORCE=1 choose)
	$(BOOK) paper $(if $(ONLY),--only $(ONLY)) $(if $(DATA),--data $(DATA)) $(if $(FORCE),--force)

bench: setup ## run the benchmarks, one after another
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

lint: setup ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

serve: book ## serve the built book on this computer (PORT=8000)
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

student: setup ## build the edition without solutions
	$(BOOK) run --jobs $(JOBS)
	$(BOOK) student

pdf: setup ## build the book as a PDF in _build/latex
	@command -v latexmk >/dev/null && command -v xelatex >/dev/null || { \
	  echo "error: latexmk or xelatex is missing; on Debian install latexmk texlive-xetex" \
	    "texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended fonts-freefont-otf lmodern." >&2; \
	  exit 1; }
	$(BOOK) run --jobs $(JOBS)
	$(BOOK) pages
	$(BIN)/jupyter-book build . --builder pdflatex -W -n --keep-going

setup: $(READY) ## create or renew .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is not Python 3.11 or newer; name one that is, as in: make PYTHON=python3.11" >&2; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --requirement requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	$(BIN)/python -c 'import matplotlib.font_manager' # lists the fonts now, not with a notice inside a chapter
	@touch $@

# In a fresh environment, so that nothing else gets in. The local suffix of a CPU-only torch exists on few machines,
# and the GPU libraries that torch brings along differ from one to another: neither is pinned.
lock: ## pin what pyproject.toml needs (versions already in requirements.lock stay: delete a line to renew it)
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --constraint requirements.lock --upgrade setuptools '.[test]'
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude scoremachines > build/lock/frozen
	grep -v -i -E '^(nvidia-|cuda-|triton)' build/lock/frozen | sed -E 's/\+[^ ]*$$//' > build/lock/requirements
	mv build/lock/requirements requirements.lock
	rm -rf build/lock

clean: ## remove everything generated, except .venv and results
	rm -rf _build build .scorebook .pytest_cache .ruff_cache .hypothesis book/generated notebooks/*.ipynb
	find src tests -name __pycache__ -type d -exec rm -rf {} +

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
