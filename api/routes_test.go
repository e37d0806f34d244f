package api

import (
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"go.yaml.in/yaml/v3"
)

type yamlParameter struct {
	Ref  string `yaml:"$ref"`
	Name string
	In   string
}

type yamlOperation struct {
	OperationID string `yaml:"operationId"`
	Parameters  []yamlParameter
	Security    []map[string][]string
	RequestBody struct{ Content map[string]any } `yaml:"requestBody"`
}

// TestRoutes holds the routes that are served, and what is known of them before their handlers run,
// against openapi.yaml, both ways.
func TestRoutes(t *testing.T) {
	data, err := os.ReadFile("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths      map[string]map[string]yaml.Node
		Components struct{ Parameters map[string]yamlParameter }
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	written := map[string]yamlOperation{}
	for path, item := range doc.Paths {
		for method, node := range item {
			if method == "parameters" {
				continue
			}
			var op yamlOperation
			if err := node.Decode(&op); err != nil {
				t.Fatal(err)
			}
			written[strings.ToUpper(method)+" "+path] = op
		}
	}
	if len(written) == 0 {
		t.Fatal("openapi.yaml has no operations")
	}
	served := map[string]bool{}
	s := newRig(t).server
	err = chi.Walk(s.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		served[method+" "+route] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for line := range served {
		if _, ok := written[line]; !ok {
			t.Errorf("%s is served and not in openapi.yaml", line)
		}
	}
	for line := range s.operations {
		if _, ok := written[line]; !ok {
			t.Errorf("%s is in operations and not in openapi.yaml", line)
		}
	}
	for line, op := range written {
		if !served[line] {
			t.Errorf("%s is in openapi.yaml and not served", line)
		}
		known := s.operations[line]
		if known == nil {
			t.Errorf("%s is in openapi.yaml and not in operations", line)
			continue
		}
		if known.name != op.OperationID {
			t.Errorf("%s is %s in openapi.yaml, %s in operations", line, op.OperationID, known.name)
		}
		var queries []string
		for _, p := range op.Parameters {
			if p.Ref != "" {
				p = doc.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
			}
			if p.In == "query" {
				queries = append(queries, p.Name)
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(queries)), slices.Sorted(slices.Values(known.queries))) {
			t.Errorf("%s has query parameters %v in openapi.yaml, %v in operations", line, queries, known.queries)
		}
		media := slices.Collect(maps.Keys(op.RequestBody.Content))
		if known.media == "" && len(media) > 0 || known.media != "" && !slices.Equal(media, []string{known.media}) {
			t.Errorf("%s takes %v in openapi.yaml, %q in operations", line, media, known.media)
		}
	}
}
