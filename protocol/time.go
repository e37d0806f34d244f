package protocol

import "time"

// Timestamp is an instant in integer milliseconds since the Unix epoch, 0 … 2^53−1.
type Timestamp int64

// FreshnessWindow is how far a request's timestamp may lie from the relay's clock, and how far
// ahead of its reader's clock any document may be dated.
const FreshnessWindow = 300 * time.Second

// TimestampOf converts from Go's time, dropping what is below a millisecond.
func TimestampOf(t time.Time) Timestamp { return Timestamp(t.UnixMilli()) }

// Time converts to Go's time, in UTC.
func (t Timestamp) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

// Add shifts the instant; it saturates at the ends of the range.
func (t Timestamp) Add(d time.Duration) Timestamp {
	return Timestamp(min(max(int64(t)+d.Milliseconds(), 0), MaxInteger))
}

// Validate checks the range.
func (t Timestamp) Validate() error {
	if t < 0 || t > MaxInteger {
		return Errorf(CodeMalformed, "a timestamp is an integer of milliseconds, 0 to 2^53-1")
	}
	return nil
}

// CheckFresh refuses a request dated more than [FreshnessWindow] from now, either way, with
// [CodeStale] or [CodeFuture].
func CheckFresh(t, now Timestamp) error {
	if t < now.Add(-FreshnessWindow) {
		return Errorf(CodeStale, "the timestamp is %d s behind this clock, 300 s are allowed", (now-t)/1000)
	}
	return CheckNotFuture(t, now)
}

// CheckNotFuture refuses a document dated more than [FreshnessWindow] after now, with [CodeFuture].
func CheckNotFuture(t, now Timestamp) error {
	if t > now.Add(FreshnessWindow) {
		return Errorf(CodeFuture, "the timestamp is %d s ahead of this clock, 300 s are allowed", (t-now)/1000)
	}
	return nil
}
