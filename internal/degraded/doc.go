// Package degraded has the tests of a relay under bad conditions: readers and writers who are slow, listeners who do
// not read or are many, a full disk, a database that stands still or loses its connections, more load than there is
// machine. Each asks the same: whoever behaves is served, memory and waiting are bounded, a refusal says when to come
// back, nothing acknowledged is lost, and it ends by itself. Each logs its figures.
package degraded
