#!/usr/bin/env bash
# Make sure that an etcd server is here: the one on PATH, Debian's package (as root), or that
# package unpacked below the cache folder (as anybody). Prints the path of the binary.
set -euo pipefail
cache="${MUMIAN_CACHE_DIR:-$HOME/.cache/mumian}/etcd"

find_etcd() {
  command -v etcd || { [ -x "$cache/usr/bin/etcd" ] && echo "$cache/usr/bin/etcd"; }
}

find_etcd && exit 0
if [ "$(id -u)" = 0 ]; then
  { apt-get update && apt-get install -y --no-install-recommends etcd-server; } >&2
else
  # apt keeps its lists in a folder of ours, so that neither root nor a fresh system list is needed.
  mkdir -p "$cache/lists/partial" "$cache/archives/partial"
  options=(-o "Dir::State::Lists=$cache/lists" -o "Dir::Cache::Archives=$cache/archives" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
  (cd "$cache" && apt-get "${options[@]}" update && apt-get "${options[@]}" download etcd-server) >&2
  dpkg -x "$cache"/etcd-server_*.deb "$cache"
fi
find_etcd || { echo "etcd could not be installed; install etcd 3.4 or newer by hand and put it on PATH" >&2; exit 1; }
