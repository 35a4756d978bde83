# Orloj: `make` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help dev test check faults fmt bench setup setup-test sim

CARGO ?= cargo
ARGS ?=
W ?= W1
N ?=
RUNS ?= 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: setup ## build, then run everything in one process on the embedded log with examples/ applied; Ctrl-C drains
	$(CARGO) build --release --package orloj
	@exec "$${CARGO_TARGET_DIR:-target}/release/orloj" dev --file examples $(ARGS)

test: setup-test ## all set-up and all tests, Apache Kafka included; ORLOJ_TEST_KAFKA=off leaves Kafka out and says so
	@if [ "$${ORLOJ_TEST_KAFKA:-on}" = off ]; then echo "ORLOJ_TEST_KAFKA=off: the tests on Apache Kafka are skipped"; fi
	$(CARGO) test --workspace --no-fail-fast $(ARGS)

check: setup ## formatting, lints, documentation, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check licenses bans sources; \
	else echo "cargo-deny is not installed: licences and sources are not checked"; fi

faults: setup-test ## the long form of the tests that kill and freeze things on Apache Kafka; about half an hour
	$(CARGO) build --package orloj
	ORLOJ_TEST_LONG=on $(CARGO) test --package orloj-tests --test faults --test e2e -- --nocapture --test-threads 1 $(ARGS)

fmt: ## format the code
	$(CARGO) fmt --all

bench: setup-test ## one workload with its calibration: make bench W=W1 N=100000 RUNS=3; see bench/README.md
	$(CARGO) build --release --package orloj-bench
	$(CARGO) build --release --package orloj
	@exec "$${CARGO_TARGET_DIR:-target}/release/orloj-bench" --workload $(W) $(if $(N),--jobs $(N)) --runs $(RUNS) $(ARGS)

setup:
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh test
