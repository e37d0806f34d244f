package relaycare

import "time"

// Rate is how fast room goes, over some time.
type Rate struct {
	Over   time.Duration
	PerDay int64 // bytes; below 0 there is more and more room
}

// shortest is the least time that a rate is told over. What other programs write in some minutes says nothing of days.
const shortest = 3 * SizeEvery

// RateOver is the rate at which the disk fills, or where nobody knows of the disk the database grows, from the oldest size of the last
// span until now. It is not ok if too little was kept to tell.
func RateOver(sizes []Size, span time.Duration, now Size) (r Rate, ok bool) {
	for _, s := range sizes {
		over := now.At.Sub(s.At)
		if over > span+SizeEvery || over < shortest {
			continue
		}
		gone := now.Bytes - s.Bytes
		if now.Free != nil && s.Free != nil {
			gone = *s.Free - *now.Free
		}
		return Rate{Over: over, PerDay: int64(float64(gone) / over.Hours() * 24)}, true
	}
	return Rate{}, false
}

// Until is how long room lasts at a rate; ok is false if it does not end.
func (r Rate) Until(room int64) (left time.Duration, ok bool) {
	if r.PerDay <= 0 {
		return 0, false
	}
	if room <= 0 {
		return 0, true
	}
	const longest = 100 * 365 * 24 // hours
	hours := float64(room) / float64(r.PerDay) * 24
	if hours > longest {
		return 0, false
	}
	return time.Duration(hours * float64(time.Hour)), true
}
