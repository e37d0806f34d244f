package check

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a PATH of its own for scripts/setup.sh: the programs it lists, and the scripts it is given.
func machine(t *testing.T, programs []string, scripts map[string]string) string {
	t.Helper()
	path := t.TempDir()
	for _, name := range append(programs, "sh", "cut", "sed", "mktemp", "rm", "tail", "readlink", "touch") {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("this test needs %s: %v", name, err)
		}
		if err := os.Symlink(real, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(path, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// setup runs scripts/setup.sh on such a machine.
func setup(t *testing.T, path string) (code int, out string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "scripts/setup.sh")
	cmd.Dir = root
	cmd.Env = []string{"PATH=" + path, "TMPDIR=" + t.TempDir(), "MACHINE=" + path}
	got, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(got)
}

func TestSetup(t *testing.T) {
	// Else the cached result of an older script would stand.
	if _, err := os.ReadFile(filepath.Join(root, "scripts/setup.sh")); err != nil {
		t.Fatal(err)
	}
	// A compiler that has every header and library, once it is there.
	const compiler = `case $1 in -print-file-name=*) echo /dev/null ;; *) cat >/dev/null ;; esac`
	const recorder = `echo "$*" >>"$MACHINE/calls"`
	const user, boss = "echo 1000", "echo 0"
	// Here, to install gcc is to put that compiler there.
	const installer = recorder + `
case " $* " in *" gcc "*) printf '#!/bin/sh\n` + compiler + `\n' >"$MACHINE/gcc"; chmod +x "$MACHINE/gcc" ;; esac`
	const command = "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc "

	for name, test := range map[string]struct {
		scripts map[string]string
		code    int
		says    []string
		calls   string
	}{
		"nothing missing": {map[string]string{"gcc": compiler, "apt-get": recorder, "id": boss}, 0, nil, ""},
		"no apt-get":      {map[string]string{"id": boss}, 2, []string{"no apt-get", "gcc: ", command}, ""},
		"not root":        {map[string]string{"apt-get": recorder, "id": user}, 2, []string{"needs root", "gcc: ", `sudo sh -c "` + command}, ""},
		"sudo asks":       {map[string]string{"apt-get": recorder, "id": user, "sudo": "exit 1"}, 2, []string{"needs root", command}, ""},
		"root":            {map[string]string{"apt-get": installer, "id": boss}, 0, []string{"setup: installing gcc: "}, "--no-install-recommends gcc "},
		"sudo":            {map[string]string{"apt-get": installer, "id": user, "sudo": `shift; "$@"`}, 0, []string{"setup: installing gcc: "}, "--no-install-recommends gcc "},
		"apt-get fails":   {map[string]string{"apt-get": "echo no network; exit 100", "id": boss}, 1, []string{"no network", "installing failed", command}, ""},
		"it did not help": {map[string]string{"apt-get": recorder, "id": boss}, 1, []string{"still missing", "gcc: "}, "gcc"},
	} {
		t.Run(name, func(t *testing.T) {
			path := machine(t, []string{"pkg-config", "cat", "chmod"}, test.scripts)
			code, out := setup(t, path)
			calls, err := os.ReadFile(filepath.Join(path, "calls"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if code != test.code || (len(test.says) == 0) != (out == "") {
				t.Errorf("exit code %d, want %d; it says:\n%s", code, test.code, out)
			}
			for _, want := range test.says {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q, but:\n%s", want, out)
				}
			}
			if (test.calls == "") != (len(calls) == 0) || !strings.Contains(string(calls), test.calls) {
				t.Errorf("apt-get was called with %q, want %q", calls, test.calls)
			}
			if test.code == 0 {
				if code, out := setup(t, path); code != 0 || out != "" {
					t.Errorf("the second time: exit code %d, and it says:\n%s", code, out)
				}
			}
		})
	}
}
