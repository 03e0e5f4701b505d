#!/usr/bin/env bash
# Make sure that an etcd server is here: the one on PATH, Debian's package (as root), or that
# package unpacked below the cache folder (as anybody). Prints the path of the binary.
set -euo pipefail
cache="${MUMIAN_CACHE_DIR:-$HOME/.cache/mumian}/etcd"

find_etcd() {
  command -v etcd || { [ -x "$cache/usr/bin/etcd" ] && echo "$cache/usr/bin/etcd"; }
}

unpack_etcd() (
  mkdir -p "$(dirname "$cache")"
  # Beside its place, and moved there whole: broken off, or run twice at once, it leaves no half of an etcd.
  scratch=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  cd "$scratch"
  # apt keeps its lists in a folder of ours, so that neither root nor a fresh system list is needed.
  mkdir -p lists/partial archives/partial
  options=(-o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache::Archives=$scratch/archives"
    -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
  apt-get "${options[@]}" update && apt-get "${options[@]}" download etcd-server &&
    dpkg -x etcd-server_*.deb unpacked && rm -rf "$cache" && mv unpacked "$cache"
)

find_etcd && exit 0
if [ "$(id -u)" = 0 ]; then
  { apt-get update && apt-get install -y --no-install-recommends etcd-server; } >&2 || true
else
  unpack_etcd >&2 || true
fi
find_etcd || { echo "etcd could not be installed; install etcd 3.4 or newer by hand and put it on PATH" >&2; exit 1; }
