package leakcheck

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { Main(m) }

// tests leave a goroutine behind, which ends in a while or not before it is let go.
type tests struct {
	code  int
	left  time.Duration
	letGo chan struct{}
}

func (x tests) Run() int {
	go func() {
		select {
		case <-x.letGo:
		case <-time.After(x.left):
		}
	}()
	return x.code
}

// One that is ending is waited for, longer than goleak does, and for tests that failed nothing is.
func TestWhatEndsIsWaitedFor(t *testing.T) {
	others := goleak.IgnoreCurrent()
	if code := (patient{tests{left: 2 * time.Second}, []goleak.Option{others}}).Run(); code != 0 || goleak.Find(others) != nil {
		t.Errorf("code %d, left is: %v", code, goleak.Find(others))
	}
	letGo := make(chan struct{})
	defer close(letGo)
	began := time.Now()
	if code := (patient{tests{code: 3, left: time.Hour, letGo: letGo}, []goleak.Option{others}}).Run(); code != 3 || time.Since(began) >= patience {
		t.Errorf("code %d after %s", code, time.Since(began))
	}
	if goleak.Find(others) == nil {
		t.Error("a goroutine that goes on is not seen")
	}
}
