#!/bin/sh
# generate [DIR]: writes the relay's routes and the Go client from openapi.yaml, and those of the user's daemon from its own,
# into the project or into the same places below DIR.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
to=${1:-$root}

scripts/tools.sh
test -e "$to/go.mod" || cp go.mod "$to/" # the generator looks for the Go version there
generate() {
	mkdir -p "$to/${1%/*}"
	# The configuration names its output from the root of the project.
	(cd "$to" && "$root/.cache/tools/oapi-codegen" -config "$root/$1" "$root/$2")
}
generate api/oapi-codegen.yaml openapi.yaml
generate client/rest/oapi-codegen.yaml openapi.yaml
generate client/daemon/localapi/oapi-codegen.yaml client/daemon/openapi.yaml
