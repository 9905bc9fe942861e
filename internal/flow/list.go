package flow

import "time"

// The words for a whole flow. One holds for each, the first that fits in the order of
// v_flow, where they are derived; they are stored nowhere.
const (
	FlowRunning   = "running"   // a task runs, or can go after others have ended
	FlowFailed    = "failed"    // a task failed and waits for a person
	FlowHeld      = "held"      // a task is held
	FlowCancelled = "cancelled" // a task was cancelled
	FlowQueued    = "queued"    // nothing of it has started yet
	FlowFinished  = "finished"  // every task is finished or ignored
)

// FlowStatuses has the words for a flow, in the order in which they are tried.
var FlowStatuses = []string{FlowRunning, FlowFailed, FlowHeld, FlowCancelled, FlowQueued, FlowFinished}

// Moment is a point in time: At, or else so long Before the database's present. The zero
// value is none.
type Moment struct {
	At     time.Time
	Before time.Duration
}

// IsZero reports whether it is none.
func (m Moment) IsZero() bool { return m.At.IsZero() && m.Before == 0 }

// Filter chooses flows: those for which everything holds that it says. An empty field says
// nothing.
type Filter struct {
	// Status: the flow has one of these words. FlowFailed also finds flows that still run
	// with a task that failed: that is news before the flow stops.
	Status []string

	WorkflowID   WorkflowID
	RegisteredBy string

	// Of one task of the flow. Reason and Fingerprint are of a suspended one.
	Program     string
	Reason      Reason
	Fingerprint string // of its error, as in v_failure_group

	// Group is one of failures: a task of it is in the flow.
	Group *FailureKey

	// Text is the beginning of the flow's id, a part of its workflow's, or of the name, the
	// program or the error of a suspended task; capitals count in the id alone.
	Text string

	Since, Until Moment        // registered at or after, and before
	MinDuration  time.Duration // from its first start to its end, or until now
}

// Position is a place in the list of flows, from the one registered last to the first.
type Position struct {
	At   time.Time
	Flow ID
}

// IsZero reports whether it is the list's beginning.
func (p Position) IsZero() bool { return p.At.IsZero() }

// Page is a part of the list of flows. It may have fewer flows than were asked for, even
// none, where few match: one call looks at a limited number, and the next one goes on.
type Page struct {
	Flows []Summary
	Next  Position  // where to go on; zero: there are no more
	AsOf  time.Time // the database's clock
}

// Summary is a flow in a list. A zero time means that it has not happened. Parameters are
// nil where they are larger than 1 kB.
type Summary struct {
	Flow
	Status       string
	Counts       Counts
	Failure      *Failure // nil: none of its tasks has failed
	Asks         int      // how many of its tasks are held until a person approves them
	Question     *Question
	RegisteredBy string // empty for rows inserted by hand
	Note         string
	StartedAt    time.Time     // of its first task
	EndedAt      time.Time     // of its last task; zero while something runs, can, or asks
	Took         time.Duration // from StartedAt to EndedAt, or until AsOf
	Position     Position      // its own
}

// Active reports whether something of it runs or can go, without a person's doing.
func (s Summary) Active() bool { return s.Status == FlowRunning || s.Status == FlowQueued }

// Counts has how many tasks of a flow are in each state.
type Counts struct{ Waiting, Running, Suspended, Finished, Ignored int }

// Total is the number of its tasks.
func (c Counts) Total() int { return c.Waiting + c.Running + c.Suspended + c.Finished + c.Ignored }

// Add counts a task.
func (c *Counts) Add(s Status) {
	switch s {
	case Waiting:
		c.Waiting++
	case Running:
		c.Running++
	case Suspended:
		c.Suspended++
	case Finished:
		c.Finished++
	case Ignored:
		c.Ignored++
	}
}

// Failure is the task of a flow that failed first: the others may follow from it.
type Failure struct {
	Seq    int
	Title  string
	Reason Reason
	Error  string // in a list its first line, at most 120 characters
}

// Question is what the first task of a flow asks that asks a person.
type Question struct {
	Seq   int
	Title string
	Text  string // in a list its first line, at most 120 characters
}

// MaxCount is how far flows are counted.
const MaxCount = 1000

// Count is how many there are, or, with More, that there are at least so many.
type Count struct {
	N    int
	More bool
}

// FlowCounts has how many flows match a filter, by each word that is asked for, whatever
// words the filter itself has. One that still runs with a failed task counts as both.
type FlowCounts struct {
	ByStatus map[string]Count
	All      Count
}
