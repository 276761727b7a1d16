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
    containerd:containerd
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
# Nor is Helm: this is its own SDK, and pushes charts as its command does.
if ! "$python/bin/python" -c 'import httplint, helm_python' 2>/dev/null; then
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check 'httplint>=2026' 'helm-python-sdk==0.2.2' >&2
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
mirrors=()
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ ${#mirrors[@]} -ne 0 ] || [ ! -s "$file" ] || mirrors=("$file")
done
# A root file system of Debian, from the mirrors that apt has: the packages that every one has.
if [ ! -e "$target/debian/root.tar" ]; then
    mkdir -p "$target/debian"
    mmdebstrap --quiet --variant=essential --skip=output/dev --format=tar \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$target/debian/root.tar.part" \
        "${mirrors[@]}" </dev/null >&2
    mv "$target/debian/root.tar.part" "$target/debian/root.tar"
fi
# ORAS is in Debian from 13 on, and runs on 12: its package is unpacked below target/, with lists of
# apt's own there.
if [ ! -x "$target/oras/usr/bin/oras" ]; then
    lists=$target/oras/apt
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$lists/sources"
    mirror=$(cat "${mirrors[@]}" /dev/null | grep -m1 -o 'https\?://[^ ]*/debian/\?\( \|$\)' || echo http://deb.debian.org/debian)
    printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: %s\n' \
        "$mirror" /usr/share/keyrings/debian-archive-keyring.gpg >"$lists/sources/trixie.sources"
    apt=(apt-get -qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$lists/sources"
        -o "Dir::State::Lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    "${apt[@]}" update </dev/null >&2
    (cd "$lists" && "${apt[@]}" download oras </dev/null >&2)
    dpkg-deb -x "$lists"/oras_*.deb "$target/oras"
    rm -r "$lists"
fi
