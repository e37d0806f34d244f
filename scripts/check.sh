#!/usr/bin/env bash
# check [NAME...]: everything about the code that is not a test of what it does, or only the named checks. It goes
# on after one has failed, and ends with a summary.
set -uo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tools=$PWD/.cache/tools
wanted=("$@")
passed=()
failed=()
not_checked=

# check NAME COMMAND... runs one check under its heading, if it is wanted.
check() {
	local name=$1
	shift
	test ${#wanted[@]} -eq 0 || [[ " ${wanted[*]} " == *" $name "* ]] || return 0
	printf '== %s\n' "$name"
	if "$@"; then
		test "$name: NOT" = "${not_checked%% CHECKED *}" || passed+=("$name")
	else
		printf 'FAILED: %s\n' "$name"
		failed+=("$name")
	fi
}

# empty COMMAND... succeeds if the command does and says nothing; else what it says is the fault.
empty() {
	local out
	out=$("$@" 2>&1) && test -z "$out" || {
		printf '%s\n' "$out"
		return 1
	}
}

format() {
	empty find . \( -path ./.cache -o -path ./bin -o -path ./out -o -path ./.git \) -prune -o -name '*.go' -exec gofmt -l {} + || {
		echo 'Run: gofmt -w on these.'
		return 1
	}
}

# Both ways to verify signatures are code of their own.
vet() { go vet ./... && CGO_ENABLED=0 go vet ./protocol/...; }

static() { "$tools/staticcheck" ./... && "$tools/staticcheck" -tags purego ./protocol/...; }

modules() { go mod verify && go -C tools mod verify; }

tidy() {
	local out
	out=$(go mod tidy -diff 2>&1 && go -C tools mod tidy -diff 2>&1) || {
		head -n 40 <<<"$out"
		echo 'Run: go mod tidy'
		return 1
	}
}

generated() {
	local file ok=0
	scripts/generate.sh "$work" || return 1
	for file in api/openapi.gen.go client/rest/rest.gen.go client/daemon/localapi/localapi.gen.go; do
		diff -u "$file" "$work/$file" | head -n 40
		test "${PIPESTATUS[0]}" -eq 0 || ok=1
	done
	test $ok -eq 0 || echo 'Run: make generate'
	return $ok
}

vectors() {
	go run ./internal/vectors -check || {
		echo 'If the change is meant, run: make vectors'
		return 1
	}
}

# ran PACKAGE TEST runs one test now, not from the cache, which does not see all that these look at. It sees to
# it that there is such a test: go test passes without.
ran() {
	local out
	out=$(go test -count=1 -v -run "^$2\$" "$1" 2>&1)
	local status=$?
	test $status -eq 0 && grep -q -e "^--- PASS: $2 " <<<"$out" || {
		printf '%s\n' "$out"
		return 1
	}
}

vulnerabilities() {
	local reason status database=${GOVULNDB:-https://vuln.go.dev}
	if ! reason=$(go run ./internal/check/vulndb "$database" 2>&1); then
		unchecked "$(head -n 1 <<<"$reason")"
		return 0
	fi
	printf '%s\n' "$reason"
	"$tools/govulncheck" -db "$database" ./... >"$work/vulnerabilities" 2>&1
	status=$?
	case $status in
	0) grep -m 1 vulnerabilities "$work/vulnerabilities" ;;
	3)
		cat "$work/vulnerabilities"
		return 1
		;;
	*)
		# The database can go away in the middle. Anything else, code that does not build say, is a failure.
		if grep -q -e 'fetching vulnerabilities' -e 'vulnerability database' -e 'dial tcp' "$work/vulnerabilities"; then
			unchecked "$(tail -n 1 "$work/vulnerabilities")"
			return 0
		fi
		cat "$work/vulnerabilities"
		return 1
		;;
	esac
}

unchecked() {
	not_checked=$(printf 'vulnerabilities: NOT CHECKED (%s)' "$1")
	echo "$not_checked"
}

scripts/tools.sh || exit 1
check format format
check vet vet
check staticcheck static
check modules modules
check tidy tidy
check generated generated
check vectors vectors
check routes ran ./api TestRoutes
check comments ran ./internal/check TestPackageComments
check links ran ./internal/check TestRelayLinksNoServer
check vulnerabilities vulnerabilities

echo
test -z "$not_checked" || echo "$not_checked"
for name in ${failed[@]+"${failed[@]}"}; do printf 'FAILED: %s\n' "$name"; done
test ${#failed[@]} -eq 0 || exit 1
test ${#passed[@]} -gt 0 || test -n "$not_checked" || {
	echo "check: there is no check named ${wanted[*]}"
	exit 1
}
printf 'passed: %s\n' "${passed[*]-}"
