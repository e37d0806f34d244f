#!/bin/sh
# static FOLDER: relayd without anything that it would load when it starts, for an image with nothing else in it. What is beside it
# in an image, empty folders, is made in FOLDER too: see packaging/Containerfile.
#
# CGO_ENABLED=1 links libsecp256k1 and the C library into it, which checks signatures three times as fast and needs their archives
# (Debian: gcc libc6-dev pkg-config libsecp256k1-dev). Names are looked up by Go's own resolver either way.
set -eu
to=${1:?"static: name the folder to build into"}
mkdir -p "$to/tmp" "$to/data"
to=$(cd "$to" && pwd)
cd "$(dirname "$0")/.."
export CGO_ENABLED="${CGO_ENABLED:-0}"
if test "$CGO_ENABLED" = 1; then
	exec go build -tags netgo,osusergo -ldflags '-s -w -linkmode external -extldflags -static' -o "$to/relayd" ./cmd/relayd
fi
exec go build -ldflags '-s -w' -o "$to/relayd" ./cmd/relayd
