// Package leakcheck ends the tests of a package, and fails them if a goroutine of theirs is left. A package that uses it has
//
//	func TestMain(m *testing.M) { leakcheck.Main(m) }
//
// goleak alone waits half a second for those that are ending, which on a busy machine is too short: the end of a connection is
// seen by goroutines at either side of it, some time after whoever ended it went on.
package leakcheck

import (
	"time"

	"go.uber.org/goleak"
)

// patience is for goroutines that are ending.
const patience = 30 * time.Second

// Main runs the tests and ends the process. The options are goleak's.
func Main(m goleak.TestingM, options ...goleak.Option) {
	goleak.VerifyTestMain(patient{m, options}, options...)
}

// patient gives goroutines their time before goleak looks.
type patient struct {
	tests   goleak.TestingM
	options []goleak.Option
}

// Run implements [goleak.TestingM].
func (p patient) Run() int {
	code := p.tests.Run()
	if code != 0 {
		return code
	}
	for deadline := time.Now().Add(patience); goleak.Find(p.options...) != nil && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	return code
}
