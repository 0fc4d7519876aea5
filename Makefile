# `make` lists what there is to do. Every target's own line says what it is for.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# Which cluster: several run side by side under different names.
NAME ?= local
# control-plane (any user) or node (root on Linux); empty: the most that is possible.
LEVEL ?=
local-cluster := cargo run --quiet --package local-cluster --

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: cluster-up
cluster-up: ## Start a Kubernetes on this machine (LEVEL=node|control-plane, NAME=local)
	@$(local-cluster) up --name $(NAME) $(if $(LEVEL),--level $(LEVEL))

.PHONY: cluster-down
cluster-down: ## Stop it and remove everything it left (NAME=local)
	@$(local-cluster) down --name $(NAME)

# --- build ---
target_dir := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
platform := $(shell uname -m)-unknown-linux-gnu
stage := $(target_dir)/stage
image_name := external-ip-controller:0.1.0
image := $(target_dir)/external-ip-controller.tar
as_in_image := -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs

.PHONY: binary
binary: ## Build the static binary of the image
	@echo "building the static binary: about 5 minutes the first time on two cores, most of them the last line's"
	@RUSTFLAGS="$(as_in_image)" cargo build --release --locked --package external-ip-controller --bin external-ip-controller --target $(platform)
	@install -D -m 0555 $(target_dir)/$(platform)/release/external-ip-controller $(stage)/out/external-ip-controller

.PHONY: image
image: binary ## Pack the Dockerfile's final stage as an image archive, without Docker
	@$(local-cluster) image-from-dockerfile Dockerfile --stage-dir build=$(stage) --name $(image_name) --out $(image)
	@ls -l --block-size=K $(image) | awk '{print "image archive: " $$5 "  " $$NF}'

.PHONY: manifests
manifests: ## Generate manifests/install*.yaml from the kustomize base
	@manifests/generate

# --- the two commands of the README ---
.PHONY: demo
demo: image ## Show the whole way on a cluster of its own (KEEP=1 leaves it running)
	@IMAGE=$(image) BINARY=$(stage)/out/external-ip-controller examples/demo

# Empty where they are known to pass for this source: .ci/run keeps account.
TOOL_TESTS ?= test-tool
.PHONY: test
test: ## Run all tests (REQUIRE_NODE=1: fail where the node level cannot start)
	@echo "the image is built meanwhile, for the last of them"
	@mkdir -p $(target_dir); nice $(MAKE) --no-print-directory image > $(target_dir)/image.log 2>&1 & image=$$!; \
	trap 'kill $$image 2> /dev/null' EXIT; \
	$(MAKE) --no-print-directory test-core test-page test-api $(TOOL_TESTS) || exit; \
	trap - EXIT; wait $$image || { tail -n 30 $(target_dir)/image.log; exit 1; }
	@$(MAKE) --no-print-directory test-chaos test-e2e

.PHONY: test-core
test-core: ## Unit tests, the pure core and its model: no cluster, a minute
	@cargo test --quiet --locked --package external-ip-core
	@cargo test --quiet --locked --package external-ip-controller --package external-ip-client --lib --bins

.PHONY: test-page
test-page: ## The page for people in a real browser (chromium-headless-shell; SCREENSHOT=file keeps the picture)
	@cargo test --quiet --locked --package external-ip-controller --lib -- --ignored a_browser_shows

.PHONY: test-api
test-api: ## The product, and parts of it as a library, on a real API server with pretended pods
	@cargo test --quiet --locked --package external-ip-controller --test api --test library --no-run
	@cargo test --quiet --locked --package external-ip-controller --test library > $(target_dir)/library.log 2>&1 & library=$$!; \
	trap 'kill $$library 2> /dev/null' EXIT; \
	cargo test --quiet --locked --package external-ip-controller --test api -- --test-threads 10 --skip alone:: || exit; \
	trap - EXIT; wait $$library; ended=$$?; echo "parts as a library:"; cat $(target_dir)/library.log; exit $$ended
	@echo "alone, because they measure:"; cargo test --quiet --locked --package external-ip-controller --test api -- --test-threads 1 alone::

.PHONY: test-chaos
test-chaos: ## A minute of chaos on a real API server, judged by an oracle of its own
	@cargo test --quiet --locked --package chaos-oracle
	@cargo test --quiet --locked --package external-ip-controller --test chaos -- --nocapture

.PHONY: chaos
chaos: ## Minutes of it, with 200 pods and every disturbance (CHAOS_ROUNDS=2, CHAOS_RECORD=directory keeps the record)
	@cargo test --quiet --locked --package external-ip-controller --test chaos -- --nocapture --ignored

.PHONY: chaos-update
chaos-update: ## The minute of chaos, begun by an older version (FROM=revision; the last tag, or the commit before)
	@from=$${FROM:-$$(git describe --tags --abbrev=0 2> /dev/null || echo HEAD~1)}; old=$(target_dir)/older; \
	rm -rf $$old/source && mkdir -p $$old/source && git archive $$from | tar -x -C $$old/source && \
	echo "building $$from, which is updated to this version" && \
	cargo build --quiet --locked --manifest-path $$old/source/Cargo.toml --target-dir $$old/target --package external-ip-controller && \
	CHAOS_FROM=$$old/target/debug/external-ip-controller \
	  cargo test --quiet --locked --package external-ip-controller --test chaos -- --nocapture

.PHONY: watchers
watchers: ## A thousand readers of /v1/watch at once, alone and beside slow and broken ones; prints how long a change takes to reach them
	@RUSTFLAGS="$(as_in_image)" cargo test --quiet --release --locked --target $(platform) --package external-ip-controller --lib -- \
	  --ignored --nocapture a_thousand_readers

# --- what it costs: docs/benchmarks.md ---
.PHONY: bench-micro
bench-micro: ## Instructions and allocations of the core, compared with the recorded ones (valgrind; RECORD=1 records them)
	@cargo run --quiet --locked --profile bench --package bench-micro -- $(if $(RECORD),record)

agnhost := $(target_dir)/bench/agnhost
.PHONY: bench
bench: binary ## The product measured beside what it is compared with (go; ONLY="admission idle steady burst", PODS=5000: one burst in both orders); tables, and bench.json
	@cargo build --quiet --release --locked --package bench
	@cd benches/agnhost && go build -trimpath -o $(agnhost) k8s.io/kubernetes/test/images/agnhost
	@$(target_dir)/release/bench run --binary $(stage)/out/external-ip-controller --agnhost $(agnhost) --json $(target_dir)/bench.json $(if $(PODS),--pods $(PODS)) $(ONLY)
	@echo "all runs: $(target_dir)/bench.json"

.PHONY: test-tool
test-tool: ## The local cluster itself: nothing is left behind, wherever it was killed
	@cargo test --quiet --locked --package local-cluster

.PHONY: test-e2e
test-e2e: image ## The product installed from its image and manifests on a node whose pods run
	@IMAGE=$(image) cargo test --quiet --locked --package external-ip-controller --test e2e

.PHONY: test-origin-clients
test-origin-clients: ## Part of test-e2e that needs no cluster: SnakeYAML and Go's yaml read the old form (mvn, go)
	@cargo test --quiet --locked --package external-ip-controller --test e2e -- the_golden_documents

.PHONY: test-java
test-java: ## The Java client on its own (mvn; offline after the first time)
	@cd clients/java && mvn -q -B verify

.PHONY: test-stores
test-stores: image ## Real data stores on a node, their clients outside (minutes; needs python3 with pip)
	@IMAGE=$(image) REQUIRE_NODE=1 cargo test --quiet --locked --package external-ip-controller --test e2e -- --ignored --nocapture --skip stores::benchmark stores::

.PHONY: bench-stores
bench-stores: image ## Clients of real stores inside, outside by the map, and through one load balancer (9 minutes; RESULTS=directory)
	@IMAGE=$(image) REQUIRE_NODE=1 RESULTS=$(or $(RESULTS),$(target_dir)) \
	  cargo test --quiet --locked --package external-ip-controller --test e2e -- --ignored --nocapture --test-threads 1 stores::benchmark

.PHONY: test-clients
test-clients: ## redis-py, ioredis and redis-rs by the live map, against a real Redis Cluster (redis-server, npm, pip; root or user namespaces)
	@clients/test/run

.PHONY: lint
lint: ## Format, clippy, generated files
	@cargo fmt --all -- --check
	@cargo fmt --manifest-path fuzz/Cargo.toml -- --check
	@cargo fmt --manifest-path clients/redis-rs/Cargo.toml -- --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@manifests/generate --check

# How long for each target; CI takes 8.
SECONDS_EACH ?= 300
.PHONY: fuzz
fuzz: ## Fuzz what reads input from outside (SECONDS_EACH=300, needs a C++ compiler)
	@fuzz/run $(SECONDS_EACH)

.PHONY: protections
protections: ## Take each protection out of a copy: its test must go red (ONLY="parts of names")
	@tests/protections/run $(ONLY)

.PHONY: nightly
nightly: ## What is too long for every change: other random histories each time, chaos, clients, stores (an hour)
	@seed=$$RANDOM$$RANDOM; echo "PROPTEST_RNG_SEED=$$seed"; PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=20000 \
	  cargo test --release --quiet --locked --package external-ip-core --test model -- --nocapture
	@for part in chaos test-java test-clients test-stores watchers protections; do $(MAKE) $$part || exit; done
