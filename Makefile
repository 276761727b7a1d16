# Commands for developers. Every target is a step of .ci/run.

PYTHON ?= python3
# Cases of other projects, beside the checkout in CI only.
BLOBSERVE_CASES ?= $(abspath ../shared/cases)
# The tools in Python that `make tools` installs.
VENV := target/python

.PHONY: check fmt fix clippy test cases real doc deny deploy demo tools

# All that needs no other software than Rust and a C compiler.
check: fmt clippy test doc

fmt:
	cargo fmt --all --check

# Not a step of CI: formats, and applies what clippy can.
fix:
	cargo clippy --all-targets --all-features --fix --allow-dirty --allow-staged
	cargo fmt --all

clippy:
	cargo clippy --all-targets --all-features -- -D warnings

# Hermetic: loopback only, nothing to install.
test:
	cargo test --no-fail-fast

cases:
	BLOBSERVE_CASES="$(BLOBSERVE_CASES)" cargo test --features cases --test cases

# Against docker-registry, skopeo, umoci, buildah, nginx, Chromium and more; `make tools` installs them.
real:
	cargo test --features real --test real

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

deny:
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny --all-features check bans licenses sources

# The manifests are valid Kubernetes, and fit together.
deploy: $(VENV)/bin/kubernetes-validate
	cargo build
	$(VENV)/bin/python deploy/check.py target/debug/blobserve

# The layout in the repository is what its script makes.
demo:
	$(PYTHON) demo/make.py --check

# Debian packages and those of Python and Node for `make real`, the Python package for `make deploy`.
tools: $(VENV)/bin/kubernetes-validate
	tests/real/install.sh

$(VENV)/bin/kubernetes-validate:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check 'kubernetes-validate>=1.29'
