# Everything is built and tested with Go alone; make check also needs a C
# compiler, for the race detector, and make test-claude what test/claude/README.md names.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/claudemesh/claudemesh/internal/version.version=$(VERSION)
STATICCHECK := go tool -modfile=tools/go.mod staticcheck
export CGO_ENABLED ?= 0

.PHONY: build demo test test-claude test-cluster faults soak soak-faults soak-leak soak-store soak-cluster soak-fuzz check fuzz bench dist clean

build: ## both binaries, into bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/claudemesh ./cmd/claudemesh-broker

demo: build ## the main job, end to end, on an embedded SQLite file
	@PATH="$(CURDIR)/bin:$$PATH" bash demo/demo.sh

test: ## everything that proves it
	go test -timeout 10m -short ./...
	go test -timeout 10m -count=1 ./internal/faults/
	cd deploy/test && go test -timeout 10m -count=1 ./...

CLAUDE_VERSION := 2.1.330
TESTS ?= test/*.test.mjs
test-claude: build ## sessions of the real Claude Code, which it installs into test/claude/.cache, on a scripted model: within 15 minutes
	test/claude/install.sh $(CLAUDE_VERSION)
	cd test/claude && CLAUDE_BIN="$(CURDIR)/test/claude/.cache/node_modules/.bin/claude" CLAUDEMESH_BIN="$(CURDIR)/bin" \
	  timeout -k 10 15m ./offline.sh node --test --test-concurrency=1 --test-reporter=spec $(TESTS)

test-cluster: ## brokers that share a Postgres database, killed, paused and cut off, and the database too; the tests of broker and client on Postgres: within ten minutes
	MESHTEST_POSTGRES=1 go test -timeout 5m -count=1 ./broker/ ./client/
	go test -timeout 10m -count=1 -v ./internal/cluster/

faults: ## kill -9 of broker and clients, cut and stalled sockets, wrong clocks, floods, slow peers, leaks: two to three minutes
	go test -timeout 10m -count=1 -v ./internal/faults/

SOAK = SOAK=1 go test -timeout 2h -count=1 -v
soak: ## all of that with its long numbers, the store's damage, power cuts and model, and two minutes of every fuzz target: within two hours
	@$(MAKE) --no-print-directory -j4 --output-sync=target soak-fuzz soak-faults soak-leak soak-store soak-cluster

soak-faults:
	$(SOAK) -skip TestLeak ./internal/faults/

soak-leak:
	$(SOAK) -run TestLeak ./internal/faults/

soak-store:
	$(SOAK) -run 'Damage|PowerCut|Model' ./internal/sqlite/
	$(SOAK) -run TestSimulation ./internal/simulation/

soak-cluster:
	$(SOAK) ./internal/cluster/

soak-fuzz: # one after the other on one core, beside the others: their number times two minutes
	@$(MAKE) --no-print-directory fuzz FUZZTIME=2m FUZZFLAGS='-parallel 1'

check: ## what review asks for besides: format, vet, staticcheck, race detector
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	go vet ./...
	cd deploy/test && go vet ./...
	$(STATICCHECK) ./...
	CGO_ENABLED=1 go test -race -short -timeout 20m ./...

FUZZTIME ?= 20s
fuzz: ## every fuzz target for FUZZTIME; FUZZFLAGS holds more flags of go test
	@for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "== $$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $(FUZZFLAGS) $$pkg || exit 1; \
	  done; \
	done

bench: ## ours beside nats-server, mosquitto and redis-server, with ratios; BENCH holds flags
	go run -C bench . $(BENCH)

dist: ## static binaries for six systems, with checksums, into dist/
	@rm -rf dist && mkdir -p dist
	@for os in linux darwin windows; do for arch in amd64 arm64; do \
	  ext=; [ $$os = windows ] && ext=.exe; \
	  for cmd in claudemesh claudemesh-broker; do \
	    echo "$$cmd $$os/$$arch"; \
	    GOOS=$$os GOARCH=$$arch go build -trimpath -ldflags '$(LDFLAGS)' -o dist/$$cmd-$$os-$$arch$$ext ./cmd/$$cmd || exit 1; \
	  done; \
	done; done
	cd dist && sha256sum * > SHA256SUMS

clean:
	rm -rf bin dist
