#!/bin/sh
# Installs what crosscheck.mjs needs, as package-lock.json pins it, into .cache, which git ignores, unless it is there.
set -eu
cd "$(dirname "$0")"
mkdir -p .cache
cmp -s package-lock.json .cache/package-lock.json && [ -d .cache/node_modules/libsodium-wrappers ] && exit 0
rm -f .cache/package-lock.json
tmp=$(mktemp -d .cache/install.XXXXXX)
trap 'rm -rf "$tmp"' EXIT
cp package.json package-lock.json "$tmp"
npm ci --prefix "$tmp" --no-audit --no-fund --ignore-scripts
rm -rf .cache/node_modules
mv "$tmp/node_modules" .cache/
cp package-lock.json .cache/ # last: its presence says that the rest is whole
