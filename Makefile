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
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: cluster-up
cluster-up: ## Start a Kubernetes on this machine (LEVEL=node|control-plane, NAME=local)
	@$(local-cluster) up --name $(NAME) $(if $(LEVEL),--level $(LEVEL))

.PHONY: cluster-down
cluster-down: ## Stop it and remove everything it left (NAME=local)
	@$(local-cluster) down --name $(NAME)
