#!/usr/bin/env bash
# Installs what the suite in tests/real drives: Debian packages, and below target/ a package each of
# Python and Node. Does nothing, and needs no privileges, where all of them are there already.
set -euo pipefail

# command → package
needed=(
    docker-registry:docker-registry
    skopeo:skopeo
    umoci:umoci
    buildah:buildah
    mmdebstrap:mmdebstrap
    htpasswd:apache2-utils
    openssl:openssl
    promtool:prometheus
    nginx:nginx-light
    strace:strace
    curl:curl
    chromium:chromium
    node:nodejs
    npm:npm
)

missing=()
for pair in "${needed[@]}"; do
    # /usr/sbin is not on everyone's PATH.
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# A font that every machine can have; Chromium loads it out of an image.
[ -e /usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf ] || missing+=(fonts-dejavu-core)
# httplint is no Debian package: it goes where `make tools` has the other tools in Python.
target=$(cd "$(dirname "$0")/../.." && pwd)/target
python=$target/python
if ! "$python/bin/python" -c 'import httplint' 2>/dev/null; then
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check 'httplint>=2026' >&2
fi
if [ ${#missing[@]} -ne 0 ]; then
    sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo=(sudo --non-interactive)
    fi
    "${sudo[@]}" apt-get update -qq </dev/null
    # The tests start what they need on ports of their own: RUNLEVEL=1 keeps the packages' services down.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
fi
# Drives Chromium. This version runs on Node 18, which Debian 12 has; it brings no browser of its own.
playwright=1.56.1
if [ "$(cat "$target/node/installed" 2>/dev/null)" != "$playwright" ]; then
    mkdir -p "$target/node"
    npm install --prefix "$target/node" --no-save --no-package-lock --no-audit --no-fund \
        --silent "playwright-core@$playwright" </dev/null >&2
    echo "$playwright" >"$target/node/installed"
fi
# A root file system of Debian, from the mirrors that apt has: the packages that every one has.
if [ ! -e "$target/debian/root.tar" ]; then
    mkdir -p "$target/debian"
    mirrors=()
    for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        [ ${#mirrors[@]} -ne 0 ] || [ ! -s "$file" ] || mirrors=("$file")
    done
    mmdebstrap --quiet --variant=essential --skip=output/dev --format=tar \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$target/debian/root.tar.part" \
        "${mirrors[@]}" </dev/null >&2
    mv "$target/debian/root.tar.part" "$target/debian/root.tar"
fi
