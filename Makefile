# Two commands for users: `make demo` and `make test`. Each does all its own set-up; nothing is installed outside this directory,
# except Debian's chromium for the browser tests where it is missing and we are root.
# Paths are relative on purpose: this directory may have a space in its name.

UV_VERSION = 0.13.9
PY = .venv/bin/python
UV = PYTHONPATH=.cache/uv UV_PYTHON_DOWNLOADS=never "$$(cat .cache/python)" -m uv
STATE ?= .interlock/demo

.PHONY: demo test check lint format unit schema clean chromium

demo: .venv/installed  ## release a good model and roll back three bad ones, on live traffic
	@$(PY) -m interlock demo --state "$(STATE)" $(if $(JSON),--json "$(JSON)")

test: lint chromium  ## everything: style, types, import contracts; unit, contract, flow, browser and end-to-end tests
	@$(PY) -m pytest -q --durations=10

check: lint  ## what every commit passes: style, types, import contracts, unit and architecture tests
	@$(PY) -m pytest -q tests/unit tests/golden tests/architecture

lint: .venv/installed  ## style, types, import contracts
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check -q .
	@$(PY) -m mypy
	@$(PY) -c "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"

unit: .venv/installed  ## unit tests only
	@$(PY) -m pytest -q tests/unit

schema: .venv/installed  ## write the JSON schema of release profiles anew
	@$(PY) -m interlock profile schema > profiles/schema/release-profile.v1.json

format: .venv/installed  ## let ruff mend what it can
	@$(PY) -m ruff check --fix -q . ; $(PY) -m ruff format -q .

clean:  ## remove everything that the commands above made
	rm -rf .venv .cache .interlock

.cache/python:
	@mkdir -p .cache
	@for name in python3 python3.13 python3.12 python3.11; do \
	  if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	    command -v "$$name" > $@; exit 0; fi; done; \
	  echo "make: no Python 3.11, 3.12 or 3.13 was found on PATH: install one" >&2; exit 1

.cache/uv/installed: .cache/python
	@echo "installing uv $(UV_VERSION)"
	@"$$(cat .cache/python)" -m pip install -q -q --root-user-action=ignore --disable-pip-version-check --no-warn-script-location --upgrade --target .cache/uv "uv==$(UV_VERSION)"
	@touch $@

.venv/installed: uv.lock pyproject.toml .cache/uv/installed
	@echo "installing the locked dependencies into .venv"
	@$(UV) sync --frozen --python "$$(cat .cache/python)" --compile-bytecode --quiet  # without byte code every process compiles mlflow anew
	@touch $@

chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing chromium for the browser tests"; apt-get update -q >/dev/null 2>&1; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium >/dev/null 2>&1 || true; fi; }
