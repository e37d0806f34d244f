package files

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanName(t *testing.T) {
	for name, want := range map[string]string{
		"holiday.mp4":                      "holiday.mp4",
		"Ferien – Köln (2).mp4":            "Ferien – Köln (2).mp4",
		"../../etc/passwd":                 "passwd",
		`C:\Users\x\report.pdf`:            "report.pdf",
		"/":                                "file",
		"":                                 "file",
		"..":                               "file",
		" . ":                              "file",
		".bashrc":                          "bashrc",
		"a\x1b[2Jb\x07":                    "a[2Jb",
		"photo\u202egpj.exe":               "photogpj.exe",
		"a\u00a0b\u2028c":                  "abc",
		"two\nlines":                       "twolines",
		"what?.txt":                        "what_.txt",
		"-rf":                              "_-rf",
		"con.txt":                          "_con.txt",
		"COM1":                             "_COM1",
		"comet":                            "comet",
		"\xff.txt":                         "_.txt",
		strings.Repeat("x", 4000):          strings.Repeat("x", maxName),
		strings.Repeat("é", 200) + ".jpeg": strings.Repeat("é", 77) + ".jpeg",
	} {
		if got := CleanName(name, "file"); got != want {
			t.Errorf("%q is called %q, want %q", name, got, want)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, seed := range []string{"a/b", "..", "CON", "\x00", "é", strings.Repeat(".", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := CleanName(name, "file")
		if got == "" || len(got) > maxName || !utf8.ValidString(got) || strings.ContainsAny(got, "/\\\x00\x1b\n") || got[0] == '.' || got[0] == '-' {
			t.Fatalf("%q is called %q", name, got)
		}
		if again := CleanName(got, "file"); again != got {
			t.Fatalf("%q is called %q, and that %q", name, got, again)
		}
	})
}
