package client

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkText checks what people type as a label or a name.
func checkText(s string, least, most int) error {
	n := utf8.RuneCountInString(s)
	switch {
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: it is not valid UTF-8", ErrName)
	case n < least || n > most:
		return fmt.Errorf("%w: it has %d characters, %d to %d are allowed", ErrName, n, least, most)
	case strings.ContainsFunc(s, unprintable):
		return fmt.Errorf("%w: it has control or formatting characters", ErrName)
	}
	return nil
}

// unprintable tells control characters and those that reorder or hide what stands around them.
func unprintable(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }

// checkName checks a friend's local name. A name that starts like an option or a key would be
// mistaken for one.
func checkName(name string) error {
	if err := checkText(name, 1, 64); err != nil {
		return err
	}
	lower := strings.ToLower(name)
	switch {
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("%w: space at its ends", ErrName)
	case strings.HasPrefix(name, "-"), strings.HasPrefix(lower, "relay1"), strings.HasPrefix(lower, "relaymarket:"):
		return fmt.Errorf("%w: %q looks like an option, key or link", ErrName, name)
	}
	return nil
}

// nameFrom makes a name of a label, as far as it can be one.
func nameFrom(label string) string {
	name := strings.Join(strings.FieldsFunc(label, func(r rune) bool { return unprintable(r) || unicode.IsSpace(r) }), "-")
	name = strings.TrimLeft(name, "-")
	if checkName(name) != nil {
		return ""
	}
	return name
}

// oneLine makes a stranger's sentence fit for an error message: short, on one line, nothing hidden in it.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unprintable(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > 300 {
		s = string(runes[:300]) + "…"
	}
	return s
}
