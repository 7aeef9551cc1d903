# make demo, make test: each is enough on a machine that has only Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
WHEEL := build/wheel
FRAMEWORKS := torch keras sklearn jax paddle

.DELETE_ON_ERROR:
.PHONY: test demo browser reference check wheel frameworks clean

test: check wheel
	$(BIN)/pytest
	$(BIN)/pytest -m conformance

# A fresh interpreter's pip may not know dependency groups, so it is brought up to date first.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "mothkit needs Python 3.11 or newer, and %s is %d.%d; say for example: make PYTHON=python3.12" \
	  % ((sys.executable,) + sys.version_info[:2]))'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

# 110 images are held back here, so the estimate of lost accuracy moves in steps of 0.9 points: two are allowed.
demo: $(READY)
	mkdir -p examples/out
	$(BIN)/mothkit harden examples/signs_poisoned.onnx --data examples/signs_clean.zip \
	  --eval-data examples/signs_test.zip --trigger examples/trigger.toml --preprocess unit \
	  --max-accuracy-drop 2 -o examples/out/signs_hardened.onnx

# The pages in Debian's Chromium; MOTHKIT_SCREENSHOTS=DIR keeps them, with pictures of them. apt-get needs root.
browser: $(READY)
	command -v chromium > /dev/null || \
	  { apt-get update && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core; }
	npm install --silent --no-save --no-fund --no-audit --prefix build/browser axe-core@4
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'playwright>=1.50'
	$(BIN)/pytest -m browser

# docs/cli.md, docs/policy.md and docs/api.md, from the program; a test fails where they are not current.
reference: $(READY)
	$(BIN)/python docs/reference.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Other frameworks' exports, and what becomes of them here; several GB under build/. Each framework has an environment
# of its own, but torch's is .venv, seen through a .pth file, with what its newer exporter needs on top.
frameworks: $(FRAMEWORKS:%=build/frameworks/%/.installed)
	for name in $(FRAMEWORKS); do \
	  build/frameworks/$$name/bin/python benchmarks/frameworks/$${name}_models.py || exit 1; done
	$(BIN)/python benchmarks/frameworks/measure.py --json benchmarks/results/frameworks.json

build/frameworks/torch/.installed: NO_DEPS := --no-deps
build/frameworks/%/.installed: benchmarks/frameworks/requirements/%.txt $(READY)
	$(BIN)/python -m venv --clear $(@D)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet $(NO_DEPS) --requirement $<
	$(if $(NO_DEPS),$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth")
	touch $@

# The wheel alone goes into an empty environment; what it depends on is looked up in .venv, whose editable
# mothkit stays out of sight, since only an environment's own .pth files are read.
wheel: $(READY)
	rm -rf $(WHEEL)
	$(BIN)/python -m build --wheel --outdir $(WHEEL)
	$(BIN)/python -m venv --without-pip $(WHEEL)/venv
	$(BIN)/python -m pip --python $(WHEEL)/venv/bin/python install --quiet --no-deps $(WHEEL)/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(WHEEL)/dependencies.pth
	mv $(WHEEL)/dependencies.pth \
	  "$$($(WHEEL)/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	$(BIN)/python -m pip --python $(WHEEL)/venv/bin/python check
	$(WHEEL)/venv/bin/python -I .ci/check_wheel.py examples/signs_poisoned.onnx

clean:
	rm -rf .venv build dist examples/out .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
