package flow

import "time"

// Wait is why a task that waits does not run yet.
type Wait struct {
	Reason   string // one of WaitReasons
	Why      string // as a sentence
	For      []int  // the tasks that it depends on and that have not ended
	Position int    // in the queue, 1 goes next; 0: it is not among the next MaxCount
}

// WaitReasons has the words for why a task waits.
var WaitReasons = []string{"dependency", "blocked", "retry", "time", "flow", "callback", "no_watcher", "limit", "queued"}

// FailureGroup is tasks that failed alike: of one definition, with one program, for one
// reason, with errors that differ only in numbers and ids.
type FailureGroup struct {
	Tasks       Count
	Flows       Count // of which the tasks are
	WorkflowID  WorkflowID
	TaskSeq     int
	Title       string
	Program     string
	Reason      Reason
	Error       string // the first line of the error of the latest of them
	Fingerprint string
	FirstAt     time.Time // when the first of them failed
	LastAt      time.Time
	Spread      []int   // how many of them failed in each twelfth of the time between; nil where they are too many
	Latest      TaskKey // the one that failed last
	Recover     string  // the SQL that runs these tasks again, and no others
}

// FailureKey names a group of failures: exactly those tasks, also where it says that
// nobody gave a reason or that there is no program.
type FailureKey struct {
	WorkflowID  WorkflowID
	TaskSeq     int
	Program     string
	Reason      Reason
	Fingerprint string
}

// Key returns what names the group.
func (g FailureGroup) Key() FailureKey {
	return FailureKey{g.WorkflowID, g.TaskSeq, g.Program, g.Reason, g.Fingerprint}
}

// FailureFilter chooses groups of failures. An empty field says nothing.
type FailureFilter struct {
	WorkflowID  WorkflowID
	Program     string
	Reason      Reason
	Fingerprint string
	Since       Moment // failed at or after: only such tasks are counted
	CountTo     int    // how far the tasks of a group are counted; 0 is 5,000
	Limit       int
}

// FailureGroups are the groups with the most tasks first.
type FailureGroups struct {
	Groups []FailureGroup
	More   bool // there are more groups
	AsOf   time.Time
}

// QueuedTask is a task that can go, in the order of claims.
type QueuedTask struct {
	TaskKey
	Position     int // 1 goes next
	Priority     int
	WorkflowID   WorkflowID
	Title        string
	Program      string
	RegisteredAt time.Time
	ReadySince   time.Time // since when it could go, as far as that is known
	WaitReason   string    // queued or no_watcher
	Why          string
}

// RunningTask is a task that runs now.
type RunningTask struct {
	TaskKey
	WorkflowID   WorkflowID
	Title        string
	Program      string
	Attempt      int
	WatcherID    string // empty: it is nobody's, inserted by hand
	Watcher      string // its host and process
	StartedAt    time.Time
	RunningFor   time.Duration
	HeartbeatAge time.Duration // of its watcher
	Odd          string        // what is odd about it; empty: nothing

	// How long the same task took in flows of the workflow that ended: half of them took
	// at most UsualP50. 0 is not known.
	UsualP50, UsualP95 time.Duration
}

// WatcherState is a watcher as its row says.
type WatcherState struct {
	Watcher
	Busy         int
	State        string // alive, draining, late, dead
	HeartbeatAt  time.Time
	HeartbeatAge time.Duration
	StartedAt    time.Time
}

// WorkflowState is a definition, with what is to be said about it.
type WorkflowState struct {
	Workflow
	Description     string
	MaxRunningFlows int // 0 is any number
	MaxRunningTasks int
	Problems        []string  // why it cannot be registered; none: it can
	Last            []Summary // its last flows, the latest first
}

// WorkflowStats is how the newest flows of a workflow went.
type WorkflowStats struct {
	WorkflowID WorkflowID
	Since      time.Time
	Flows      Count          // that were looked at; More: there are more in that time
	ByStatus   map[string]int // of these
	Took       Quantiles      // of finished ones
	Tasks      []TaskStats    // by Seq
	AsOf       time.Time
}

// SuccessRate is the share of the flows that ended which are finished; false: none has.
func (s WorkflowStats) SuccessRate() (rate float64, known bool) {
	finished := s.ByStatus[FlowFinished]
	ended := finished + s.ByStatus[FlowFailed] + s.ByStatus[FlowCancelled]
	if ended == 0 {
		return 0, false
	}
	return float64(finished) / float64(ended), true
}

// Quantiles are those of durations; zero if there were none.
type Quantiles struct{ P50, P95, Max time.Duration }

// TaskStats is how the tasks of one definition went.
type TaskStats struct {
	TaskSeq  int
	Title    string // of the newest one
	Program  string
	Runs     int // tasks that finished or failed
	Failed   int // that are suspended as failed now
	Attempts int // superseded ones that had failed
	Took     Quantiles
}

// Stats is how everything stands, and how it went.
type Stats struct {
	AsOf    time.Time
	Flows   FlowCounts
	Workers int // of live watchers
	Busy    int // of these
	Running int // tasks
	Queue   Count
	Oldest  time.Duration // how long the task that has waited longest in the queue could go already, of whatever priority
	Since   time.Time
	Bucket  time.Duration
	Buckets []Bucket // without gaps, the oldest first
}

// Bucket is a span of time with what ended in it.
type Bucket struct {
	At       time.Time // its beginning
	Finished int       // tasks
	Failed   int       // tasks that were suspended as failed
}

// Attention is what needs a person, apart from tasks that failed.
type Attention struct {
	Check      Check    // whether the database's rules hold
	NoWatcher  bool     // tasks can go, and no live watcher is there
	CanGo      Count    // tasks in the queue
	Strangers  []string // programs of tasks in the queue that no live watcher has
	Failed     Count    // tasks that are suspended as failed, in whatever way
	Lost       Count    // of these: as lost
	Dead, Late int      // watchers whose heartbeat has stopped or is late
	Unowned    int      // running tasks that are nobody's
}

// Version is what the database is.
type Version struct {
	Schema      int64
	NeedsSchema int64 // what this program needs at least
	Postgres    string
}
