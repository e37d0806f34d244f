#!/bin/sh
# setup [test]: installs what building and running need and this machine lacks; with test, what only tests need, too.
#
# It looks at what is really there each time, is silent when nothing is missing, and asks nothing. It
# exits 2 with the command to run when it may not install, 1 when installing failed.
set -eu

min_postgres=15
min_node=18
no_cluster=/etc/postgresql-common/createcluster.d/relaymarket.conf

extra=${1:-}

have() { command -v "$1" >/dev/null 2>&1; }

# compiles NAME... tells whether the C compiler finds these headers.
compiles() {
	for header in "$@"; do echo "#include <$header>"; done | gcc -E -x c -o /dev/null - 2>/dev/null
}

# links LIBRARY tells whether the C compiler finds this file among its libraries.
links() { test -e "$(gcc -print-file-name="$1" 2>/dev/null || :)"; }

has_secp256k1() {
	pkg-config --exists libsecp256k1 2>/dev/null &&
		compiles secp256k1.h secp256k1_extrakeys.h secp256k1_schnorrsig.h && links libsecp256k1.a
}

# has_postgres looks where relayd does: on the path, then where Debian keeps the server's programs.
has_postgres() {
	for postgres in "$(command -v postgres || :)" /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres; do
		test -x "$postgres" || continue
		real=$(readlink -f "$postgres")
		test -x "${real%/*}/initdb" || continue
		version=$("$real" --version 2>/dev/null | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
		test "${version:-0}" -ge "$min_postgres" && return 0
	done
	return 1
}

# has_node: a client in another language is tested with it.
has_node() {
	version=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p')
	test "${version:-0}" -ge "$min_node"
}

# missing prints a line for each package that is missing: its name, a bar, and what it is for.
missing() {
	have gcc || echo 'gcc|signatures are checked with a library in C'
	{ have gcc && compiles stdlib.h stdint.h && links libc.so; } || echo 'libc6-dev|headers for the C compiler'
	have pkg-config || echo 'pkg-config|finds the C library'
	has_secp256k1 || echo 'libsecp256k1-dev|the signatures'
	has_postgres || echo 'postgresql|relayd keeps its records in it (only the programs: no database is created or started)'
	test "$extra" = test || return 0
	has_node || echo 'nodejs|a client in another language is tested with it'
	have npm || echo 'npm|gets the library of that client'
	have systemd-analyze || echo 'systemd|judges the service that relayd comes with'
	have curl || echo 'curl|a client that is not ours has to take the certificate of a relay'
}

# install_command prints what root has to run. Debian would make a database and start it at boot; the file, written
# before, keeps it from that.
install_command() {
	set -- $(echo "$todo" | cut -d'|' -f1)
	for package in "$@"; do
		test "$package" != postgresql ||
			printf "mkdir -p '%s' && echo 'create_main_cluster = false' > '%s' && " "${no_cluster%/*}" "$no_cluster"
	done
	echo "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $*"
}

# cannot WHY... tells what a person can do, and ends.
cannot() {
	echo "setup: $1, and these are missing:" >&2
	echo "$todo" | sed 's/\(.*\)|\(.*\)/  \1: \2/' >&2
	echo "$2" >&2
	echo "  $3" >&2
	exit 2
}

todo=$(missing)
test -n "$todo" || exit 0

command=$(install_command)
have apt-get || cannot "there is no apt-get" "Install them with this system's package manager. On Debian it would be, as root:" "$command"
if test "$(id -u)" -eq 0; then
	as_root=
elif have sudo && sudo -n true 2>/dev/null; then
	as_root='sudo -n'
else
	cannot "this needs root" "Run this, then try again:" "sudo sh -c \"$command\""
fi

echo "$todo" | sed 's/\(.*\)|\(.*\)/setup: installing \1: \2/'
log=$(mktemp "${TMPDIR:-/tmp}/relaymarket-setup.XXXXXX")
# On a machine that has just booted, the system may be updating itself: wait for its lock.
quiet=$(echo "$command" | sed 's/apt-get /apt-get -q -o DPkg::Lock::Timeout=300 /g')
if ! $as_root sh -c "$quiet" >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	echo "setup: installing failed; the whole output is in $log. The command was:" >&2
	echo "  $command" >&2
	exit 1
fi
rm -f "$log"

todo=$(missing)
test -z "$todo" || {
	echo "setup: still missing after the installation (too old, or not in this system's package sources):" >&2
	echo "$todo" | sed 's/\(.*\)|\(.*\)/  \1: \2/' >&2
	exit 1
}
