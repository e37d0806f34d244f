#!/bin/sh
# fuzz [TIME]: runs every fuzz target for TIME (default 20s), one after the other.
set -eu
cd "$(dirname "$0")/.."
time=${1:-20s}

targets=$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's|^\./\(.*\)/[^/]*:func \(.*\)|./\1 \2|' | sort)
test -n "$targets" || {
	echo "fuzz: there are no fuzz targets" >&2
	exit 1
}
echo "$targets" | while read -r package target; do
	echo "== $package $target"
	go test -run='^$' -fuzz="^$target\$" -fuzztime="$time" "$package"
done
