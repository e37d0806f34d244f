#!/bin/sh
# generate [DIR]: writes the server's routes and the Go client from openapi.yaml, into the project or
# into the same places below DIR.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
to=${1:-$root}

scripts/tools.sh
for config in api/oapi-codegen.yaml client/rest/oapi-codegen.yaml; do
	mkdir -p "$to/${config%/*}"
	# The configuration names its output from the root of the project.
	(cd "$to" && "$root/.cache/tools/oapi-codegen" -config "$root/$config" "$root/openapi.yaml")
done
