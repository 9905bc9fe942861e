# Flower's commands. `make` alone lists them.
#
# run and test need Go and git, and install what else they need (apt-get, as root or with
# sudo), saying so. up, down and logs need Docker.

PORT     ?= $(or $(FLOWER_PORT),8000)
FUZZTIME ?= 30s
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

LDFLAGS  := -s -w -X github.com/d-tsuji/flower/internal/cli.version=$(VERSION)
NEED     := go run ./internal/dev/need
WITH     := go run ./internal/pgdev/with
LINT     := bin/golangci-lint
COMPOSE   = FLOWER_PORT=$(PORT) VERSION=$(VERSION) $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.DEFAULT_GOAL := help
.PHONY: help
help:
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: build ## PostgreSQL, register and watcher in this terminal; runs the sample. PORT=8000, or DATABASE_URL=…
	@[ -n "$$DATABASE_URL" ] || $(NEED) postgres
	@go build -o bin/dev ./internal/dev
	@bin/dev -port $(PORT)

.PHONY: demo
demo: build ## the same with a database of its own: workflows, and two hundred flows to look at in a browser
	@$(NEED) postgres
	@go build -o bin/dev ./internal/dev
	@bin/dev -port $(PORT) -demo

.PHONY: test
test: ## every test, with the race detector, on a PostgreSQL of its own
	@$(NEED) postgres curl
	@$(NEED) pgbouncer || echo 'Testing without a pooler.' >&2
	@$(NEED) chromium || echo 'Testing without a browser.' >&2
	@if $(NEED) gcc; then race=-race; export CGO_ENABLED=1; else echo 'Testing without the race detector.' >&2; fi; \
	$(WITH) go test $$race -shuffle=on -timeout 30m -p $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) ./...

.PHONY: e2e
e2e: ## the pages in a real browser: all of its tests, of which make test runs a few
	@$(NEED) postgres chromium
	FLOWER_E2E=all $(WITH) go test -count=1 -timeout 30m ./internal/web/e2e

.PHONY: pictures
pictures: ## those of the README, anew, of what make demo shows
	@$(NEED) postgres chromium
	FLOWER_E2E=all FLOWER_PICTURES='$(CURDIR)/.github/images' $(WITH) go test -count=1 -run TestPictures ./internal/web/e2e

.PHONY: lint
lint: $(LINT) ## the linter; .golangci.yml has the rules
	$(LINT) run ./...

.PHONY: fmt
fmt: $(LINT) ## format the Go code
	$(LINT) fmt ./...

.PHONY: build
build: ## bin/register and bin/watcher
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: up
up: ## the same three with docker-compose, on PORT
	$(COMPOSE) up -d --build
	@for _ in $$(seq 60); do $(COMPOSE) exec -T register register -healthcheck >/dev/null 2>&1 && break; sleep 1; done
	@$(COMPOSE) ps
	@echo 'register: http://localhost:$(PORT)   next: make logs, make psql, make down'

.PHONY: down
down: ## stop what up started; the data stays (docker-compose down -v removes it)
	$(COMPOSE) down

.PHONY: logs
logs: ## follow what up started
	$(COMPOSE) logs -f

.PHONY: psql
psql: ## psql on DATABASE_URL, else the database of run, else of up
	@if [ -n "$$DATABASE_URL" ]; then psql "$$DATABASE_URL"; \
	elif [ -f .flower/database-url ]; then psql "$$(cat .flower/database-url)"; \
	elif $(COMPOSE) exec -T db true </dev/null >/dev/null 2>&1; then $(COMPOSE) exec $$([ -t 0 ] || echo -T) db psql -U flower flower; \
	else echo 'Nothing runs here: start make run or make up first, or say DATABASE_URL=… make psql.' >&2; exit 1; fi

.PHONY: cover
cover: ## how much the tests reach; details by go tool cover -html=coverage.out
	@$(NEED) postgres
	$(WITH) go test -coverpkg=./... -coverprofile=coverage.out ./...
	@go tool cover -func=coverage.out | tail -1

.PHONY: bench
bench: ## the engine's speed, beside what PostgreSQL itself takes; BENCH='-only W2 -scale 0.1'
	@$(NEED) postgres
	@go run ./internal/bench $(BENCH)

.PHONY: bench-peers
bench-peers: ## the same beside River and graphile-worker, whose programs it builds (needs npm)
	@$(NEED) postgres
	@go build -C internal/bench/peers -o $(CURDIR)/bin/peer-river ./river
	@npm --prefix internal/bench/peers/graphile ci --no-audit --no-fund --silent
	@go run ./internal/bench -only W1,W2,W3 -peer River=bin/peer-river \
		-peer 'graphile-worker=node internal/bench/peers/graphile/bench.mjs' $(BENCH)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME=30s
	@grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' internal | while IFS=: read -r file func; do \
		go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "./$${file%/*}" || exit; \
	done

SBOM := bin/cyclonedx-gomod

.PHONY: sbom
sbom: build $(SBOM) ## the modules in each binary, as CycloneDX: bin/register.cdx.json, bin/watcher.cdx.json
	@for p in register watcher; do $(SBOM) bin -json -std -version '$(VERSION)' -output bin/$$p.cdx.json bin/$$p || exit; done

$(SBOM): internal/tools/sbom/go.sum
	GOBIN='$(CURDIR)/bin' CGO_ENABLED=0 go -C internal/tools/sbom install tool

.PHONY: clean
clean: ## remove what was built, and the database of run
	go run ./internal/dev -forget
	rm -rf bin coverage.out

# About a minute, once for each version of the linter.
$(LINT): internal/tools/go.sum
	GOBIN='$(CURDIR)/bin' CGO_ENABLED=0 go -C internal/tools install tool
	@touch $@
