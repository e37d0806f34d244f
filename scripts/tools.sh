#!/bin/sh
# tools: builds the tools of tools/go.mod, at the versions pinned there, into .cache/tools. Go's own cache makes
# this a moment when nothing has changed, and right when the Go version has.
set -eu
cd "$(dirname "$0")/.."
exec go build -C tools -o ../.cache/tools/ tool
