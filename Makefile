# All commands of the project. `make` alone lists them.

.DEFAULT_GOAL := help
SHELL := /bin/bash -euo pipefail
PYTHON ?= python3

# Compile bytecode once, at installation: it would take most of the time of a first start.
# If uv is not installed, it gets its own small environment.
export UV_COMPILE_BYTECODE := 1
UV := $(shell command -v uv || echo .uv/bin/uv)
# TFDV's current wheels need glibc 2.39; older hosts get TFDV 1.16 in .venv-tfdv.
TFDV := $(shell $(PYTHON) -c "import platform; name, release = platform.libc_ver(); \
	print('legacy' if name == 'glibc' and tuple(map(int, release.split('.'))) < (2, 39) else 'current')")
CODE := core components pipelines serving training tests bench
RUN := .venv/bin/
# Installs system packages that Python's package index does not have.
APT := bash -c 'sudo=$$([ $$(id -u) = 0 ] || echo sudo); $$sudo apt-get -qq update && \
	DEBIAN_FRONTEND=noninteractive $$sudo apt-get -qqy install --no-install-recommends --no-remove "$$@" >/dev/null' apt

STOP_ORTHANC := bash -c 'sudo=$$([ $$(id -u) = 0 ] || echo sudo); \
	$$sudo update-rc.d orthanc disable >/dev/null; $$sudo service orthanc stop >/dev/null 2>&1 || true'

# Images are named `cxrflow-<target>:<version>`, as in the steps and the manifests.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BASE ?= docker.io/library/debian:trixie-slim
ACCELERATOR ?= cpu
IMAGES ?= data training serving pacs
BUILDER ?= $(shell docker info >/dev/null 2>&1 && echo docker build || command -v podman >/dev/null && \
	echo podman build || echo buildah build)

.PHONY: help setup lint format test demo growth-demo demo-pacs bench images images-test clean browser kustomize dcmtk \
	pacs flink storage trainer prometheus cluster-images \
	cluster-test debian-image kind-up minikube-up kind-down minikube-down

help: ## list the commands
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | awk -F '( [a-z-]+)?:.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: .venv/.ready ## create the environments (.venv, and .venv-tfdv on hosts with glibc < 2.39)

.uv/bin/uv:
	@$(PYTHON) -m venv .uv >/dev/null 2>&1 || { rm -rf .uv; $(APT) python3-venv && $(PYTHON) -m venv .uv; } \
	|| { echo "setup: install uv, or Python's venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@.uv/bin/pip install --quiet --disable-pip-version-check uv

.venv/.ready: pyproject.toml uv.lock | $(filter .uv/bin/uv,$(UV))
	@echo "installing the locked packages; this takes some minutes" >&2
ifeq ($(TFDV),legacy)
	$(UV) sync --quiet --locked --all-extras --no-extra cuda --no-extra tfdv
	UV_PROJECT_ENVIRONMENT=.venv-tfdv $(UV) sync --quiet --locked --python 3.11 --only-group tfdv-legacy
else
	$(UV) sync --quiet --locked --all-extras --no-extra cuda
endif
	@touch $@

lint: setup ## check style, formatting, types and imports between packages
	$(RUN)ruff check $(CODE)
	$(RUN)ruff format --check $(CODE)
	$(RUN)mypy
	$(RUN)lint-imports

format: setup ## format the code
	$(RUN)ruff check --fix-only $(CODE)
	$(RUN)ruff format $(CODE)

# Pages are tested in a real browser.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || $(APT) chromium fonts-dejavu-core \
	|| { echo "test: install Chromium, which the page tests need" >&2; exit 1; }

# Overlays are built by the real kustomize: kubectl's, or a copy in .tools.
kustomize:
	@command -v kubectl >/dev/null || test -x .tools/kustomize || \
	GOBIN=$(CURDIR)/.tools go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1 \
	|| { echo "test: install kubectl, which the manifest tests need" >&2; exit 1; }

# DICOM files are compared with another reader.
dcmtk:
	@command -v dcm2img dcmj2pnm >/dev/null || $(APT) dcmtk \
	|| { echo "test: install DCMTK, which the DICOM tests need" >&2; exit 1; }

# The worker beside a PACS is tested with a real one, and what it stores with a validator. Debian's packages start
# Orthanc as a service, which is not what the tests use.
pacs:
	@test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so \
	|| if test -e /usr/sbin/Orthanc; then $(APT) orthanc-dicomweb; \
	else $(APT) orthanc orthanc-dicomweb && $(STOP_ORTHANC); fi \
	|| { echo "test: install Orthanc and its DICOMweb plugin, which the PACS tests need" >&2; exit 1; }
	@command -v dciodvfy >/dev/null || $(APT) dicom3tools \
	|| { echo "test: install dicom3tools, which the PACS tests need" >&2; exit 1; }

# Beam's pipelines are also tested on a real Flink.
flink: .tools/flink

.tools/flink: tests/flink/pom.xml
	@which java mvn >/dev/null || $(APT) openjdk-17-jre-headless maven \
	|| { echo "test: install Java 17 and Maven, which the Flink tests need" >&2; exit 1; }
	@rm -rf $@ $@.tmp
	@mvn --quiet --batch-mode --file $< dependency:copy-dependencies -DincludeScope=runtime \
		-DoutputDirectory=$(CURDIR)/$@.tmp
	@mv $@.tmp $@

# An emulator of Cloud Storage that supports preconditions, unlike those in Python.
storage: .tools/fake-gcs-server

.tools/fake-gcs-server:
	@which go >/dev/null || $(APT) golang-go \
	|| { echo "test: install Go, which builds the Cloud Storage emulator" >&2; exit 1; }
	@GOBIN=$(CURDIR)/.tools go install github.com/fsouza/fake-gcs-server@v1.56.1

# TrainJobs are checked against Kubeflow Trainer's own schemas, which come with its Go module.
trainer: .tools/trainer-schemas

.tools/trainer-schemas:
	@which go >/dev/null || $(APT) golang-go \
	|| { echo "test: install Go, which fetches Kubeflow Trainer's schemas" >&2; exit 1; }
	@rm -rf $@.tmp; mkdir -p $@.tmp
	@go mod download -json github.com/kubeflow/trainer/v2@v2.2.0 >$@.tmp/module || \
		{ echo "test: cannot download Kubeflow Trainer's schemas; is the Go module proxy reachable?" >&2; exit 1; }
	@sed -n 's/^.*"Dir": "\(.*\)".*/\1/p' $@.tmp/module | \
		xargs -I{} sh -c 'cp {}/manifests/base/crds/trainer.kubeflow.org_*.yaml $@.tmp'
	@rm $@.tmp/module; mv $@.tmp $@

# Alerts and the dashboard are tested with Debian's Prometheus, which is only unpacked: installing it would start a
# service.
prometheus: .tools/monitoring-schemas
	@which prometheus promtool >/dev/null || test -x .tools/prometheus/promtool || ( \
		sudo=$$([ $$(id -u) = 0 ] || echo sudo); mkdir -p .tools/prometheus; cd .tools/prometheus; \
		$$sudo apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download prometheus && \
		dpkg-deb --extract prometheus_*.deb all && mv all/usr/bin/* . && rm -r all prometheus_*.deb) \
	|| { echo "test: install Prometheus, which the tests of alerts need" >&2; exit 1; }

# The Prometheus operator's schemas, generated from its Go types as its own releases are.
MONITORING := github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring
.tools/monitoring-schemas:
	@which go >/dev/null || $(APT) golang-go \
	|| { echo "test: install Go, which generates the Prometheus operator's schemas" >&2; exit 1; }
	@rm -rf $@.tmp; mkdir -p $@.tmp
	@cd $@.tmp && { go mod init schemas && echo 'package schemas; import _ "$(MONITORING)/v1"' >schemas.go && \
		go get $(MONITORING)@v0.95.2 && go mod tidy; } 2>log || { cat log >&2; exit 1; }
	@GOBIN=$(CURDIR)/.tools go install sigs.k8s.io/controller-tools/cmd/controller-gen@v0.20.0
	@cd $@.tmp && ../controller-gen crd paths=$(MONITORING)/v1 output:crd:dir=schemas
	@mv $@.tmp/schemas $@; rm -rf $@.tmp

# One more than cores, at most five: now and then a test waits for a process that it has started.
WORKERS := $(shell $(PYTHON) -c "import os; print(min(os.cpu_count(), 4) + 1)")

test: lint browser kustomize dcmtk pacs flink storage trainer prometheus ## run all checks and tests
	$(RUN)pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10

DEMO ?= demo
demo: setup ## run everything on sample radiographs, serve the winner, query it (KEEP=1: keep serving)
	@$(RUN)python -m bench.demo "$(DEMO)" $(if $(KEEP),--keep)

demo-pacs: setup pacs ## answer the images of an Orthanc with the demo's model, until interrupted
	@test -d "$(DEMO)/store/cxrflow" || exec $(MAKE) demo
	@$(RUN)python -m bench.demo_pacs "$(DEMO)"

# COVID and KERMANY give the real datasets; COVID must have snapshots/metadata-<day>.csv.
growth-demo: setup ## simulate a growing dataset: three spans, drift, challengers, lineage
	@$(RUN)cxrflow stop --output growth >/dev/null
	rm -rf growth
	$(RUN)python -m bench.growth growth $(if $(COVID),--covid $(COVID) --kermany $(KERMANY))

images: setup ## build the images of the steps and the server, and an SBOM for each (in build/)
	@mkdir -p build
	@set -e; for target in $(IMAGES); do \
		echo "cxrflow-$$target:$(VERSION)"; \
		$(BUILDER) --file manifests/images/Dockerfile --target $$target --tag cxrflow-$$target:$(VERSION) \
			--build-arg BASE=$(BASE) --build-arg ACCELERATOR=$(ACCELERATOR) --build-arg VERSION=$(VERSION) . ; \
		extras="--extra $$target --extra pipelines"; \
		[ $$target != pacs ] || extras="--extra pacs"; \
		[ $$target != data ] || extras="$$extras --extra tfdv"; \
		[ "$$target-$(ACCELERATOR)" != training-cuda ] || extras="$$extras --extra cuda"; \
		$(UV) export --quiet --locked --no-default-groups --no-emit-project --format cyclonedx1.5 $$extras \
			> build/cxrflow-$$target.cdx.json; \
	done

# For a Debian without a container engine or registry: its own base image, and buildah in a chroot.
BUILDAH := buildah build --layers --force-rm --isolation chroot --network host --volume /etc/ssl/certs:/etc/ssl/certs:ro --quiet
debian-image:
	@which buildah podman debootstrap >/dev/null || $(APT) buildah podman debootstrap
	@podman image exists localhost/debian:trixie-slim || { \
		base=$$(mktemp -d); trap 'rm -rf "$$base"' EXIT; \
		debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv trixie "$$base" >/dev/null; \
		tar -C "$$base" -c . | podman import --quiet - localhost/debian:trixie-slim; }

# It deletes the intermediate layers, which are as large as the images.
PRUNE := buildah rmi --prune >/dev/null 2>&1 || \
	echo "images-test: containers of a build that was killed still use its layers; \`buildah rm --all\` deletes them"
images-test: setup debian-image ## build the images from scratch and test each of them (Debian, as root, 30 GB)
	@$(MAKE) images BASE=localhost/debian:trixie-slim BUILDER="$(BUILDAH)" || { $(PRUNE); exit 1; }
	$(RUN)pytest tests/images/test_images.py
	@$(PRUNE)

# Kubernetes and KServe's controller for the tests, built once: some minutes of two processors.
.tools/cluster: tests/cluster/programs/go.mod tests/cluster/programs/build
	@which go >/dev/null || $(APT) golang-go \
	|| { echo "cluster-test: install Go, which builds Kubernetes" >&2; exit 1; }
	@rm -rf $@ $@.tmp; mkdir -p $@.tmp
	@tests/cluster/programs/build $@.tmp
	@mv $@.tmp $@

# What runs on the node: the server, and of KServe what downloads models, by its own package.
STORAGE := build/storage-initializer
cluster-images: setup debian-image .tools/cluster
	@which containerd >/dev/null || $(APT) containerd
	@which runc >/dev/null || $(APT) runc
	@which ip >/dev/null || $(APT) iproute2
	@test -d /usr/lib/cni || $(APT) containernetworking-plugins
	$(MAKE) images IMAGES=serving BASE=localhost/debian:trixie-slim BUILDER="$(BUILDAH)"
	@rm -rf $(STORAGE) build/cluster-images.tar; mkdir -p $(STORAGE)
	@cp .tools/cluster/initializer-entrypoint $(STORAGE)
	@$(UV) export --quiet --locked --only-group dev --no-hashes > $(STORAGE)/constraints.txt
	@install="$(UV) pip install --quiet --python-version 3.13 --target $(STORAGE)/site"; \
		$$install --constraint $(STORAGE)/constraints.txt boto3 pyyaml requests; \
		$$install --no-deps kserve-storage==0.20.0
	@$(BUILDAH) --file tests/cluster/images/Dockerfile --target storage-initializer \
		--tag localhost/storage-initializer:v0.20.0 $(STORAGE)
	@$(BUILDAH) --file tests/cluster/images/Dockerfile --target pause --tag localhost/pause:test $(STORAGE)
	@podman save --quiet --multi-image-archive --output build/cluster-images.tar localhost/pause:test \
		localhost/storage-initializer:v0.20.0 localhost/cxrflow-serving:$(VERSION)

# Without root, or with NODE=kwok, the node is simulated, and tests that need real containers are skipped.
cluster-test: setup trainer .tools/cluster ## run the rollout against a real Kubernetes and KServe (Debian, as root)
	@[ $$(id -u) != 0 ] || [ "$(NODE)" = kwok ] || $(MAKE) cluster-images
	@CXRFLOW_NODE=$(NODE) tests/cluster/run $(RUN)pytest --durations 10 tests/cluster/test_*.py

# A local cluster with Kubeflow Pipelines, KServe and sample radiographs.
kind-up minikube-up: setup ## create a cluster with kind (or minikube-up) and install everything on it
	@manifests/local-cluster.sh up $(@:-up=)

kind-down minikube-down: ## delete the cluster (or minikube-down)
	@manifests/local-cluster.sh down $(@:-down=)

bench: setup ## measure speed: ratios within one run, and what a user waits for
	$(if $(COVID),COVID=$(COVID) KERMANY=$(KERMANY)) TF_CPP_MIN_LOG_LEVEL=2 PYTHONWARNINGS=ignore $(RUN)python -m bench $(ONLY)

clean: ## delete the environments and all generated files
	rm -rf .venv .venv-tfdv .uv .tools .mypy_cache .pytest_cache .ruff_cache cxrflow-output demo growth build
