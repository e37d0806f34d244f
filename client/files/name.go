package files

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is how many bytes a name may have: the part file adds up to 71, and most file systems end at 255.
const maxName = 160

// CleanName is what a file is called here that its sender calls name: the last element of what may be a path of any
// system, without what cannot be seen, what Windows refuses, and dots or spaces at the ends, so that it is no hidden
// file. If nothing is left of it, it is fallback.
func CleanName(name, fallback string) string {
	name = strings.ToValidUTF8(name, "_")
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case strings.ContainsRune(`<>:"|?*`, r):
			return '_'
		case r == ' ':
			return ' '
		case unicode.IsGraphic(r) && !unicode.IsSpace(r):
			return r
		}
		return -1
	}, name)
	name = strings.Trim(name, ". ")
	if name == "" {
		return fallback
	}
	stem, _, _ := strings.Cut(strings.ToUpper(name), ".")
	if deviceName(strings.TrimSpace(stem)) || strings.HasPrefix(name, "-") {
		name = "_" + name // a device of Windows; or an option to whoever types it after a command
	}
	return shorten(name)
}

// shorten keeps the ending, by which systems tell what a file is.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	ending := ""
	if i := strings.LastIndexByte(name, '.'); i > 0 && len(name)-i <= 20 {
		ending = name[i:]
	}
	stem := name[:maxName-len(ending)]
	for !utf8.ValidString(stem) {
		stem = stem[:len(stem)-1]
	}
	return strings.TrimRight(stem, ". ") + ending
}

func deviceName(stem string) bool {
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	if len(stem) < 4 || stem[:3] != "COM" && stem[:3] != "LPT" {
		return false
	}
	digit := stem[3:]
	return len(digit) == 1 && digit[0] >= '0' && digit[0] <= '9' || digit == "¹" || digit == "²" || digit == "³"
}
