# Bare `make` lists the targets.

# Installed into $(DESTDIR)$(PREFIX)/bin.
PREFIX = /usr/local
# How long each fuzz target runs.
FUZZTIME = 20s
# KEEP=1 leaves the demo running.
KEEP =
# Flags of the crash harness, as SOAK='-fraction 0.1'; SOAK=-help lists them.
SOAK =
# Flags of the load generator, as BENCH='-points write -seconds 3'; BENCH=-help lists them. With any the market is not measured.
BENCH =

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup build ## relays, people and a private Bitcoin chain, for real, in a minute (KEEP=1 leaves them running)
	go build -o bin/ ./internal/demo
	KEEP=$(KEEP) bin/demo

.PHONY: localnet
localnet: setup build ## a market on this machine to try things on: a Bitcoin chain, three relays, a hub, two people; until Ctrl-C
	go build -o bin/ ./internal/demo
	bin/demo -localnet

.PHONY: test
test: setup ## all tests, with the race detector, and the pure Go build
	@scripts/setup.sh test || test -z "$$CI"
	go test -race -vet=off -ldflags="-s -w" -p 3 -timeout 20m ./...
	CGO_ENABLED=0 go test ./protocol/...
	CGO_ENABLED=0 go build ./...

.PHONY: check
check: setup ## format, vet, staticcheck, modules, generated files, routes, comments, vulnerabilities
	@scripts/check.sh

.PHONY: build
build: setup ## relayd and relay, into bin/
	go build -o bin/ ./cmd/relayd ./cmd/relay

.PHONY: install
install: build ## put relayd and relay into PREFIX/bin (/usr/local/bin)
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 bin/relayd bin/relay "$(DESTDIR)$(PREFIX)/bin"

.PHONY: setup
setup: ## install what this machine lacks (the others do it by themselves)
	@scripts/setup.sh

.PHONY: generate
generate: ## the server's routes and the Go client, from openapi.yaml
	scripts/generate.sh

.PHONY: vectors
vectors: setup ## the test vectors, from the code, and out/transactions.jsonl: every way a contract can go, mined
	go run ./internal/vectors
	go run ./internal/paths -append

.PHONY: bench
bench: setup build ## speed of the relay beside the limits of this machine, and of the market; under 25 minutes (BENCH='-seconds 3 -repeats 1': quicker)
	go build -o bin/ ./internal/bench ./internal/marketbench
	bin/bench $(BENCH)
	test -n "$(BENCH)" || bin/marketbench

.PHONY: bench-market
bench-market: setup ## the market alone: proof of work, checks a second, books of 1,000 and 100,000 relays, a million junk announcements; two minutes
	go build -o bin/ ./internal/marketbench
	bin/marketbench

.PHONY: soak
soak: setup ## break relays on purpose for hours and check what they promise (SOAK='-fraction 0.1': a tenth)
	go build -o bin/ ./internal/crash
	bin/crash -size soak $(SOAK)
	go test ./escrow -run TestBounds -timeout 2h -rapid.checks 30000
	go test ./ledger -run TestBillOfRandomHistories -timeout 1h -rapid.checks 100000
	go test ./records -run 'TestBillIsItsCounters|TestRefusedLinesLeaveTheBill' -timeout 1h -rapid.checks 3000
	SIGKILL=all go test ./cmd/relay -run TestKilledAtEachStep -timeout 1h

.PHONY: bench-size
bench-size: setup build ## how the relay grows with its table, some 40 minutes and 30 GB (BENCH='-rows 1e6': less; '-rows 5e7:200': 50 million small ones)
	go build -o bin/ ./internal/bench
	bin/bench -size $(BENCH)

.PHONY: fuzz
fuzz: setup ## every fuzz target for FUZZTIME (20s)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache out
