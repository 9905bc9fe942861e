package flow

import (
	"encoding/json"
	"time"
)

// Attempt is one try at a task, as it can be read afterwards.
type Attempt struct {
	TaskKey
	Number    int
	Current   bool   // the task's row is of this attempt; the others were superseded
	Status    Status // what it came to; Running if it was still running when it was superseded
	Reason    Reason // why it is or was suspended
	Error     string
	Output    json.RawMessage // nil is none
	WatcherID string          // empty where it is not known
	StartedAt time.Time
	EndedAt   time.Time // zero while it runs
	AgainAt   time.Time // when a person had the task run again after it; read by Superseded alone
}

// Event is a change that a person has made.
type Event struct {
	ID     int64 // rises
	At     time.Time
	Flow   ID
	Seq    int        // of the task; 0: of the flow as a whole
	Action ActionKind // empty: rows were changed by hand
	From   *Status    // nil: the state was not changed
	To     *Status
	Change json.RawMessage // of other columns: {"column": [old, new]}; nil is none
	Note   string          // why

	Actor       string // who did it
	Way         Way    // how
	Login       string // who was logged in to the database; empty where that is not known
	Application string // by way of what program
	Client      string // from which address; empty for a local connection
	Key         string // the idempotency key of the request, if it had one

	// What the flow and the task are called; empty where they are no longer there.
	WorkflowID WorkflowID
	Title      string
}

// Kind is one word for what was done: the action, or what a change by hand comes to.
func (e Event) Kind() string {
	switch {
	case e.Action != "":
		return string(e.Action)
	case e.To == nil:
		return "edit"
	case *e.To == Waiting:
		return "rerun"
	case *e.To == Suspended:
		return "suspend"
	case *e.To == Finished:
		return "finish"
	case *e.To == Ignored:
		return "skip"
	}
	return "edit"
}

// EventKinds has what Event.Kind can say.
var EventKinds = []string{"rerun", "cancel", "hold", "resume", "approve", "skip", "finish", "suspend", "edit", "insert", "delete"}

// EventFilter chooses events. An empty field says nothing.
type EventFilter struct {
	Flow  ID
	Seq   int
	Actor string
	Kind  string

	// After is the id of an event: those that came later, in their order. Without it the
	// last ones, the latest first, or the last before the one with the id Before.
	After  *int64
	Before int64
	Limit  int
}

// EventPage is a part of the events.
type EventPage struct {
	Events []Event
	// Next is where to go on: After, or Before where the latest were asked for. It may go
	// further than the last of the events, where few match.
	Next int64
	More bool // there may be more by now
}

// LogFilter chooses lines of a task's log.
type LogFilter struct {
	TaskKey
	Attempt int    // 0 is the latest that has a log, or else the task's present one
	Text    string // in the line, whatever its capitals

	// After is the number of a line: those that follow. Without it the last ones, or the
	// last before line Before. In the order of their numbers either way.
	After  *int64
	Before int64
	Limit  int
}

// LogPage is a part of the log of an attempt.
type LogPage struct {
	Attempt int // whose; 0: the task has not started yet
	Latest  int // the number of the task's present or last attempt
	Lines   []LogLine
	More    bool // there are more that match: after these if lines after one were asked for, else before these
	Running bool // the attempt runs: more lines may come
}
