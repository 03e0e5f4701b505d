#!/usr/bin/env bash
# Print the path of helm: the one that is installed, or one built from its source into the cache folder. Needs Go.
set -euo pipefail
VERSION=v3.22.0
cache=${MUMIAN_CACHE_DIR:-$HOME/.cache/mumian}
if command -v helm; then exit; fi
if [ ! -x "$cache/helm/$VERSION/helm" ]; then
  command -v go > /dev/null || { echo "neither helm nor Go is installed" >&2; exit 1; }
  GOBIN="$cache/helm/$VERSION" go install "helm.sh/helm/v3/cmd/helm@$VERSION" >&2
fi
echo "$cache/helm/$VERSION/helm"
