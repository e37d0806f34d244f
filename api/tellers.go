package api

import (
	"runtime"
	"sync"
)

// yieldAfter is how many streams are told before requests get a turn: a record may be for thousands.
const yieldAfter = 64

// tellers are the goroutines that write to streams. A record is told to all its listeners by few of them, one after
// the other, because waking a goroutine for each would cost a third of the time that the writing takes. They
// never wait: a listener that does not read gets a goroutine of his own. They end when there is nothing to tell.
type tellers struct {
	most int

	mu      sync.Mutex // guards what follows
	queue   []*stream  // each once, see stream.queued: as many as there are streams at most
	working int
}

func newTellers() *tellers { return &tellers{most: runtime.GOMAXPROCS(0)} }

// put never blocks.
func (q *tellers) put(t *stream) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, t)
	if q.working < q.most {
		q.working++
		go q.work()
	}
}

func (q *tellers) work() {
	for told := 1; ; told++ {
		t := q.take()
		if t == nil {
			return
		}
		t.tell()
		if told%yieldAfter == 0 {
			runtime.Gosched()
		}
	}
}

// take is the next stream; nil ends the teller.
func (q *tellers) take() *stream {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		q.queue = nil
		q.working--
		return nil
	}
	t := q.queue[0]
	q.queue[0] = nil
	q.queue = q.queue[1:]
	return t
}
