#!/usr/bin/env bash
# Installs the Debian packages that the suite in tests/real drives. Does nothing, and needs no
# privileges, where all of them are there already.
set -euo pipefail

# command → package
needed=(
    docker-registry:docker-registry
    skopeo:skopeo
    umoci:umoci
    htpasswd:apache2-utils
    openssl:openssl
    promtool:prometheus
    nginx:nginx-light
    strace:strace
    curl:curl
)

missing=()
for pair in "${needed[@]}"; do
    # /usr/sbin is not on everyone's PATH.
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# httplint is no Debian package: it goes where `make tools` has the other tools in Python.
python=$(cd "$(dirname "$0")/../.." && pwd)/target/python
if ! "$python/bin/python" -c 'import httplint' 2>/dev/null; then
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check 'httplint>=2026' >&2
fi
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

sudo=()
if [ "$(id -u)" -ne 0 ]; then
    sudo=(sudo --non-interactive)
fi
"${sudo[@]}" apt-get update -qq </dev/null
# The tests start what they need on ports of their own: RUNLEVEL=1 keeps the packages' services down.
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
