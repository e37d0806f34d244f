package findings

import (
	"strings"
	"testing"
)

func TestList(t *testing.T) {
	l := List{Okf("clock", "the same, to %d ms", 3), {Name: "backup", Level: Fail, Text: "there\x1b[2J is\n none", Do: "relayd backup TO"}, {Name: "tls", Level: Warn, Text: "ends soon", Do: "renew it"}}
	var text, object strings.Builder
	if err := l.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := "ok    clock   the same, to 3 ms\n" +
		"fail  backup  there [2J is none\n" +
		"      do: relayd backup TO\n" +
		"warn  tls     ends soon\n" +
		"      do: renew it\n"
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
	if err := l.WriteJSON(&object); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(object.String(), `{"worst":"fail","findings":[{"name":"clock","level":"ok","text":"the same, to 3 ms"},`) {
		t.Errorf("got %s", object.String())
	}
	if l.Count(Warn) != 1 || l[2:].Worst() != Warn || l[:1].Worst() != OK || (List{{Level: "?"}}).Worst() != "?" {
		t.Error("levels are not in their order")
	}
	object.Reset()
	if err := List(nil).WriteJSON(&object); err != nil || object.String() != `{"worst":"ok","findings":[]}`+"\n" {
		t.Errorf("of nothing: %q, %v", object.String(), err)
	}
}
