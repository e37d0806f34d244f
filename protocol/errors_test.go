package protocol

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

// Every declared code has its row, and every row says what it should.
func TestCodes(t *testing.T) {
	tree, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(tree, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Code") {
			declared++
		}
		return true
	})
	codes := Codes()
	if len(codes) != declared || declared == 0 {
		t.Errorf("%d codes are declared, %d are in the table", declared, len(codes))
	}
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for _, c := range codes {
		if s := c.Status(); s < 400 || s > 599 {
			t.Errorf("%s has the status %d", c, s)
		}
		if !word.MatchString(string(c)) || c.Title() == "" || strings.HasSuffix(c.Title(), ".") {
			t.Errorf("%s: %q", c, c.Title())
		}
		wrapped := fmt.Errorf("at %d: %w", 1, Errorf(c, "why"))
		if !errors.Is(wrapped, c) || errors.Is(wrapped, Code("other")) || !strings.Contains(wrapped.Error(), string(c)+": why") {
			t.Errorf("%v is not recognized", wrapped)
		}
	}
	if unknown := Code("of_the_future"); unknown.Status() != 500 || unknown.Title() == "" {
		t.Error("an unknown code has no status or title")
	}
	if got := (&Error{Code: CodeGone}).Error(); got != "gone" {
		t.Errorf("without detail it reads %q", got)
	}
}
