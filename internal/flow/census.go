package flow

import "time"

// Census is how much there is of what is not over, for those who watch Flower. It costs
// the same however much is: nothing counts further than MaxCensus.
type Census struct {
	Flows     map[string]int // by status, but for finished ones
	Queued    int            // tasks that can go now
	Delayed   int            // tasks that could go but wait for a time
	Limited   int            // tasks that could go but for a limit of their workflow
	Running   int            // tasks
	Suspended map[Reason]int // tasks, by reason; "" is none

	OldestWait time.Duration // of a task in the queue, since it could go

	Watchers     map[string]int // by state: alive, draining, late, dead
	Workers      int            // of those that live
	Busy         int
	HeartbeatAge time.Duration // the greatest one of a watcher
}

// MaxCensus is how far a census counts each kind of tasks.
const MaxCensus = 100_000
