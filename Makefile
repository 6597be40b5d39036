# What a fresh machine needs: Go and make, and for `make test` slapd, krb5-kdc, fail2ban, promtool and systemd-analyze, which .ci/packages installs (as do
# `make conformance` and `make e2e`, for Chromium, podman, npm and Python). `make e2e` gets workerd and the libraries of the
# example Workers with npm. `make clients` installs no packages: its tests say which ones they miss.

GO        ?= go
BIN       := bin/warifu
EXAMPLE   := cmd/warifu/testdata/app.yml
WORKER    := cmd/warifu/testdata/worker
MCP       := cmd/warifu/testdata/mcp
ARTIFACTS ?= $(CURDIR)/artifacts
# As long in every copy of the repository, because it is in the program.
VERSION   := $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null || echo unknown)
COMMIT    := $(shell git rev-parse HEAD 2>/dev/null)
SOURCES   := $(shell find cmd manifests plugins server storage -type f ! -name '*_test.go' ! -path '*/testdata/*' ! -path 'manifests/deploy/*') go.mod go.sum

# Pinned tools; Go fetches and builds them.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRCHECK    := github.com/kisielk/errcheck@v1.30.0
ERRORLINT   := github.com/polyfloyd/go-errorlint@v1.8.0
GORELEASER  := github.com/goreleaser/goreleaser/v2@v2.15.1
HELM        := helm.sh/helm/v4/cmd/helm@v4.3.1
NFPM        := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0
CYCLONEDX   := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

.PHONY: run build test conformance clients differential conformance-oidf upstreams worker e2e e2e-packages image package-files packages chart release-check release kubernetes faults faults-short lint bench generate fuzz clean

run: build ## run the example app on embedded etcd, in ./.warifu
	./$(BIN) dev -f $(EXAMPLE)

build: $(BIN)

# Static, and the same bytes wherever and whenever it is made of the same commit by the same Go.
BUILD = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)'

$(BIN): $(SOURCES)
	$(BUILD) -o $@ ./cmd/warifu

.PHONY: runtime-kubernetes
runtime-kubernetes: bin/warifu-runtime-kubernetes ## the runtime for Kubernetes, an executable of its own

# Its module follows the versions that ours has; the diff that this can leave is to be committed.
RUNTIME_KUBERNETES = cd plugins/runtimekubernetes && export GOFLAGS=-mod=mod

bin/warifu-runtime-kubernetes: $(SOURCES)
	$(RUNTIME_KUBERNETES) && $(BUILD) -o $(CURDIR)/$@ .

# Under the race detector each process waits for stragglers when it exits, by itself for a second. The tests start
# hundreds of them; those that are the program itself run without it. The longest packages come first, so that none of
# them is left to the end, when it has only one processor.
test: build ## all tests, with the race detector
	GORACE="$(GORACE) atexit_sleep_ms=10" WARIFU_BINARY=$(CURDIR)/$(BIN) $(GO) test -race -parallel 4 -timeout 25m \
		./cmd/warifu ./server ./storage ./manifests ./plugins/plugintest ./...

conformance: e2e-packages build ## the modules of the OpenID Foundation's plans against the binary, with a report in artifacts/conformance; then client libraries
	@mkdir -p $(ARTIFACTS)/conformance
	@status=0; WARIFU_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 ./conformance -report $(ARTIFACTS)/conformance || status=$$?; \
		cat $(ARTIFACTS)/conformance/table.txt; exit $$status
	WARIFU_E2E_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 -v -run Library -tags e2e ./conformance/clients

clients: build ## clients that take minutes to build: oauth2-proxy, Kubernetes, Spring, Rust, mod_auth_openidc
	cd conformance/clients/e2e && WARIFU_E2E_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 -v -timeout 30m .

differential: build ## Dex, and warifu after warifu migrate dex in its place: apps learn the same (minutes to build the first time, then seconds)
	cd conformance/differential && WARIFU_E2E_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 -v .

conformance-oidf: build ## the OpenID Foundation's suite, which runs already at SUITE=https://…; results are in artifacts/oidf
	$(GO) run ./conformance/oidf -suite "$(SUITE)" -warifu $(CURDIR)/$(BIN) -report $(ARTIFACTS)/oidf

upstreams: bin/keycloak ## a real Keycloak as an identity provider, by OpenID Connect and by SAML: ten minutes, and Java 17
	WARIFU_KEYCLOAK=$(CURDIR)/bin/keycloak $(GO) test -count=1 -v -timeout 40m -tags upstreams -run Keycloak ./cmd/warifu

bin/keycloak:
	.ci/keycloak $@

worker: e2e-packages $(WORKER)/dist/worker/index.js $(MCP)/dist/worker/index.js ## the example Workers with their libraries, and workerd to run them

$(WORKER)/dist/worker/index.js $(MCP)/dist/worker/index.js: %/dist/worker/index.js: %/src/index.js %/package.json
	cd $* && npm install && npm run build

# What the tests under the tag e2e are told; workerd is the one of the example Worker.
E2E = WARIFU_E2E_BINARY=$(CURDIR)/$(BIN) WARIFU_ARTIFACTS=$(ARTIFACTS) \
	WARIFU_WORKERD="$$(ls $(CURDIR)/$(WORKER)/node_modules/@cloudflare/workerd-*/bin/workerd)"

e2e: e2e-packages worker build ## the binary in a real browser, with real Workers and containers; all plugins against the kit
	mkdir -p $(ARTIFACTS)
	$(E2E) $(GO) test -count=1 -p 1 -timeout 20m -tags e2e ./cmd/warifu/e2e/ \
		./plugins/runtimeworkers ./plugins/runtimecontainers ./plugins/example-python

e2e-packages:
	@command -v chromium >/dev/null && command -v podman >/dev/null && command -v npm >/dev/null || .ci/packages

# What people install with (manifests/deploy). Debian wants a version that begins with a digit, and later ones to be
# greater: before the first tag, that is the time of the commit.
ARCH        := $(shell $(GO) env GOARCH)
PACKAGES    := $(ARTIFACTS)/packages/$(ARCH)
COMMIT_TIME := $(shell git log -1 --format=%ct 2>/dev/null)
DEB_VERSION := $(shell echo '$(VERSION)' | sed -E 's/^v//; s/-([0-9]+)-g/+\1.g/; s/-dirty/+dirty/; /^[0-9]+\./!s/^/0~$(COMMIT_TIME).g/')

# Authorities for the image: those of this machine (ca-certificates).
CERTIFICATES ?= /etc/ssl/certs/ca-certificates.crt

image: build $(PLUGINS) ## the image warifu:latest, with podman, or with IMAGE_BUILD="docker build"; PLUGINS=FILES puts plugins into it
	.ci/image $(BIN) $(ARTIFACTS)/image $(CERTIFICATES) $(PLUGINS)
	$(or $(IMAGE_BUILD),podman build --format docker) --tag warifu:latest --file Dockerfile $(ARTIFACTS)/image

package-files: ## program, bill of materials, licences and Debian package in artifacts/packages/ARCH
	rm -rf $(PACKAGES)
	GOARCH=$(ARCH) $(BUILD) -o $(PACKAGES)/warifu ./cmd/warifu
	cd $(PACKAGES) && $(GO) run $(CYCLONEDX) bin -json -noserial -notimestamp -std -version $(VERSION) \
		-output warifu.cdx.json warifu
	$(GO) run ./manifests/deploy/notices $(PACKAGES)/warifu > $(PACKAGES)/third-party-licenses.txt
	.ci/package-docs $(VERSION) $(COMMIT) $(PACKAGES)/doc
	PACKAGES=$(PACKAGES) ARCH=$(ARCH) VERSION='$(DEB_VERSION)' SOURCE_DATE_EPOCH=$(COMMIT_TIME) \
		$(GO) run $(NFPM) package --config manifests/deploy/nfpm.yaml --packager deb --target $(PACKAGES)

packages: package-files ## these, and then they are proved: built again elsewhere, installed, upgraded, removed
	WARIFU_PACKAGES=$(PACKAGES) $(GO) test -count=1 -v -timeout 30m -tags packages ./manifests/deploy

chart: bin/helm ## the Helm chart as an archive in artifacts/packages
	bin/helm package manifests/deploy/helm/warifu --app-version $(VERSION) --destination $(ARTIFACTS)/packages

bin/helm: # ten minutes, once
	GOBIN=$(CURDIR)/bin $(GO) install $(HELM)

release-check: ## the file by which releases are made; ten minutes to build the tool, once
	$(GO) run $(GORELEASER) check --config manifests/deploy/goreleaser.yaml

release: ## programs and packages of a tagged commit, published
	$(GO) run $(GORELEASER) release --clean --config manifests/deploy/goreleaser.yaml

# What the tests under the tag kubernetes run. Nothing is linked to it, so it is built once and stays.
KUBERNETES := v1.37.2

bin/kube-apiserver:
	cd .ci/kube-apiserver && $(GO) build -trimpath -ldflags '-s -w $(foreach v,gitVersion=$(KUBERNETES) gitMajor=1 gitMinor=37,-X \
		k8s.io/component-base/version.$(v))' -o $(CURDIR)/$@ .

kubernetes: build bin/kube-apiserver bin/helm bin/warifu-runtime-kubernetes ## what needs a cluster, against a real kube-apiserver: twenty minutes to build it and helm, once
	WARIFU_KUBE_APISERVER=$(CURDIR)/bin/kube-apiserver WARIFU_HELM=$(CURDIR)/bin/helm $(GO) test -count=1 -timeout 20m \
		-tags kubernetes ./manifests/deploy
	WARIFU_KUBE_APISERVER=$(CURDIR)/bin/kube-apiserver $(GO) test -count=1 -timeout 20m -tags kubernetes ./plugins/kubetest
	WARIFU_KUBE_APISERVER=$(CURDIR)/bin/kube-apiserver WARIFU_E2E_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout 20m \
		-run Kubernetes -tags e2e,kubernetes ./conformance/clients
	$(RUNTIME_KUBERNETES) WARIFU_KUBE_APISERVER=$(CURDIR)/bin/kube-apiserver WARIFU_E2E_BINARY=$(CURDIR)/$(BIN) \
		WARIFU_RUNTIME_KUBERNETES=$(CURDIR)/bin/warifu-runtime-kubernetes && $(GO) test -count=1 -timeout 20m -tags kubernetes .

# In its own directory, go test prints the lines of the table as they come.
FAULTS = @mkdir -p $(ARTIFACTS) && rm -rf $(ARTIFACTS)/faults $(ARTIFACTS)/faults.txt && cd cmd/warifu/faults && \
	WARIFU_FAULTS_BINARY=$(CURDIR)/$(BIN) WARIFU_FAULTS_OLD_ETCD=$(CURDIR)/bin/etcd-old WARIFU_ARTIFACTS=$(ARTIFACTS) \
	$(GO) test -count=1 -timeout 20m -tags faults

bin/etcd-old:
	.ci/old-etcd $@

faults: build bin/etcd-old ## etcd, disks, clocks and replicas fail while clients and operators go on: a line for each fault, also in artifacts/faults.txt
	$(FAULTS)

faults-short: build ## the faults that a minute has room for
	$(FAULTS) -short

lint: ## formatting, vet, staticcheck, errcheck, errorlint, and generated code is current
	@test -z "$$(gofmt -l cmd conformance manifests plugins server storage)" || { echo 'gofmt would change:'; gofmt -l cmd conformance manifests plugins server storage; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e ./cmd/warifu/e2e/ ./plugins/... ./conformance/...
	$(GO) vet -tags faults ./cmd/warifu/faults/
	$(GO) vet -tags upstreams,man ./cmd/warifu/
	$(GO) vet -tags kubernetes,packages ./plugins/... ./manifests/deploy
	$(RUNTIME_KUBERNETES) && $(GO) vet -tags kubernetes . && $(GO) run $(STATICCHECK) -tags kubernetes . && \
		$(GO) run $(ERRCHECK) -exclude $(CURDIR)/.errcheck -tags kubernetes . && $(GO) run $(ERRORLINT) -tags kubernetes .
	$(GO) run $(STATICCHECK) -tags e2e,faults,upstreams,kubernetes,packages ./...
	$(GO) run $(ERRCHECK) -exclude .errcheck -tags e2e,faults,upstreams,kubernetes,packages ./...
	$(GO) run $(ERRORLINT) -tags e2e,faults,upstreams,kubernetes,packages ./...

bench: e2e-packages worker build ## endpoints, and how near they come to bare handlers; rotations under load and apply to ready; growth
	@mkdir -p $(ARTIFACTS)
	@status=0; $(GO) test -run '^$$' -bench . -benchtime 3s ./server/ > $(ARTIFACTS)/bench.txt || status=$$?; \
		cat $(ARTIFACTS)/bench.txt; exit $$status
	$(GO) test -run '^$$' -bench . -benchtime 3x ./manifests/
	$(E2E) $(GO) test -run '^$$' -bench Rotate -benchtime 100x -timeout 30m -tags e2e ./cmd/warifu/e2e/
	$(E2E) $(GO) test -run '^$$' -bench ApplyToReady -benchtime 20x -timeout 30m -tags e2e ./cmd/warifu/e2e/
	$(GO) test -run '^$$' -bench 'Growth|People' -benchtime 1x -timeout 30m ./cmd/warifu
	@.ci/ratios $(ARTIFACTS)/bench.txt

generate: ## all generated code; leaves no diff when it is current
	$(GO) generate ./...

fuzz: ## each fuzz target for a while
	.ci/fuzz 20s

clean:
	rm -rf bin artifacts .warifu
