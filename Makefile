# What a fresh machine needs: Go and make. `make e2e` also installs what its tests drive: Chromium, podman and npm with apt-get,
# workerd and the example Worker's library with npm.

GO        ?= go
BIN       := bin/warifu
EXAMPLE   := cmd/warifu/testdata/app.yml
WORKER    := cmd/warifu/testdata/worker
ARTIFACTS ?= $(CURDIR)/artifacts
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
SOURCES   := $(shell find cmd manifests plugins server storage -type f ! -name '*_test.go' ! -path '*/testdata/*') go.mod go.sum

# Pinned tools; Go fetches and builds them.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRCHECK    := github.com/kisielk/errcheck@v1.30.0
ERRORLINT   := github.com/polyfloyd/go-errorlint@v1.8.0

.PHONY: run build test conformance conformance-oidf worker e2e e2e-packages lint bench generate fuzz clean

run: build ## run the example app on embedded etcd, in ./.warifu
	./$(BIN) dev -f $(EXAMPLE)

build: $(BIN)

$(BIN): $(SOURCES)
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o $@ ./cmd/warifu

test: ## all tests, with the race detector
	$(GO) test -race -timeout 10m ./...

conformance: e2e-packages build ## the modules of the OpenID Foundation's plans against the binary, with a report in artifacts/conformance; then client libraries
	@mkdir -p $(ARTIFACTS)/conformance
	@status=0; WARIFU_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 ./conformance -report $(ARTIFACTS)/conformance || status=$$?; \
		cat $(ARTIFACTS)/conformance/table.txt; exit $$status
	WARIFU_E2E_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 -v -run Library -tags e2e ./conformance/clients

conformance-oidf: build ## the OpenID Foundation's suite, which runs already at SUITE=https://…; results are in artifacts/oidf
	$(GO) run ./conformance/oidf -suite "$(SUITE)" -warifu $(CURDIR)/$(BIN) -report $(ARTIFACTS)/oidf

worker: e2e-packages $(WORKER)/dist/worker/index.js ## the example Worker with its library, and workerd to run it

$(WORKER)/dist/worker/index.js: $(WORKER)/src/index.js $(WORKER)/package.json
	cd $(WORKER) && npm install && npm run build

# What the tests under the tag e2e are told; workerd is the one of the example Worker.
E2E = WARIFU_E2E_BINARY=$(CURDIR)/$(BIN) WARIFU_ARTIFACTS=$(ARTIFACTS) \
	WARIFU_WORKERD="$$(ls $(CURDIR)/$(WORKER)/node_modules/@cloudflare/workerd-*/bin/workerd)"

e2e: e2e-packages worker build ## the binary in a real browser, with real Workers and containers; all plugins against the kit
	mkdir -p $(ARTIFACTS)
	$(E2E) $(GO) test -count=1 -p 1 -timeout 20m -tags e2e ./cmd/warifu/e2e/ \
		./plugins/runtimeworkers ./plugins/runtimecontainers ./plugins/example-python

e2e-packages:
	@command -v chromium >/dev/null && command -v podman >/dev/null && command -v npm >/dev/null || .ci/packages

lint: ## formatting, vet, staticcheck, errcheck, errorlint, and generated code is current
	@test -z "$$(gofmt -l cmd conformance manifests plugins server storage)" || { echo 'gofmt would change:'; gofmt -l cmd conformance manifests plugins server storage; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e ./cmd/warifu/e2e/ ./plugins/... ./conformance/...
	$(GO) run $(STATICCHECK) -tags e2e ./...
	$(GO) run $(ERRCHECK) -exclude .errcheck -tags e2e ./...
	$(GO) run $(ERRORLINT) -tags e2e ./...

bench: e2e-packages worker build ## endpoints, and how near they come to bare handlers; rotations under load and apply to ready
	@mkdir -p $(ARTIFACTS)
	@status=0; $(GO) test -run '^$$' -bench . -benchtime 3s ./server/ > $(ARTIFACTS)/bench.txt || status=$$?; \
		cat $(ARTIFACTS)/bench.txt; exit $$status
	$(GO) test -run '^$$' -bench . -benchtime 3x ./manifests/
	$(E2E) $(GO) test -run '^$$' -bench Rotate -benchtime 100x -timeout 30m -tags e2e ./cmd/warifu/e2e/
	$(E2E) $(GO) test -run '^$$' -bench ApplyToReady -benchtime 20x -timeout 30m -tags e2e ./cmd/warifu/e2e/
	@.ci/ratios $(ARTIFACTS)/bench.txt

generate: ## all generated code; leaves no diff when it is current
	$(GO) generate ./...

fuzz: ## each fuzz target for a while
	.ci/fuzz 20s

clean:
	rm -rf bin artifacts .warifu
