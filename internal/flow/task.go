package flow

import (
	"encoding/json"
	"fmt"
	"time"
)

// TaskKey is the identity of a task: task_flow_id and task_exec_seq.
type TaskKey struct {
	Flow ID
	Seq  int
}

// String returns "flow/seq", for errors.
func (k TaskKey) String() string { return fmt.Sprintf("%s/%d", k.Flow, k.Seq) }

// Task is one claimed attempt at a task: what a watcher needs to run it, as it stood in
// its row when it was claimed.
type Task struct {
	TaskKey
	WorkflowID  WorkflowID
	Program     string
	Parameters  json.RawMessage // a JSON object
	Attempt     int             // 1 for the first; never falls
	AttemptBase int             // Attempt when a person last reset the task
	ClaimID     string          // the fence: a UUID
	Timeout     time.Duration   // 0 is none
	OnLost      OnLost
	RunIf       string    // a condition, evaluated before the program runs; empty is none
	Limited     bool      // its workflow has a limit: its end may make room for another task
	StartedAt   time.Time // of this attempt, by the database's clock
	Pause       *Pause    // what the last pause has left; nil: none since a person reset the task
}

// IdempotencyKey is the same for every retry and rescue of a task, and another one
// after a person has reset it, since a deliberate rerun is meant to have its effect
// again.
func (t Task) IdempotencyKey() string { return idempotencyKey(t.TaskKey, t.AttemptBase) }

func idempotencyKey(k TaskKey, base int) string {
	return fmt.Sprintf("%s:%d:%d", k.Flow, k.Seq, base)
}

// Standing is how a task stands just now, for whoever looks after what its attempts have
// left behind outside the database.
type Standing struct {
	TaskKey
	Status      Status
	Held        bool // suspended, until somebody lets it go on as it was
	Attempt     int
	AttemptBase int
	Running     time.Duration // since its attempt began, by the database's clock; 0 if none runs
}

// IdempotencyKey is that of the task's present or next attempt.
func (s Standing) IdempotencyKey() string { return idempotencyKey(s.TaskKey, s.AttemptBase) }

// Outcome is how an attempt ended, as the watcher saw it. What becomes of the task is
// decided where the row is: an attempt that failed may be tried again.
type Outcome string

// The outcomes.
const (
	OutcomeFinished   Outcome = "finished"
	OutcomeFailed     Outcome = "failed"
	OutcomeTimeout    Outcome = "timeout"
	OutcomeInvalid    Outcome = "invalid"     // it cannot succeed as it stands: no retry
	OutcomeHandedBack Outcome = "handed back" // the watcher stopped it to shut down
	OutcomeNotStarted Outcome = "not started" // the watcher had no worker for it: it has done nothing
	OutcomeSkipped    Outcome = "skipped"     // its condition does not hold: its program was not run
	OutcomePaused     Outcome = "paused"      // it wants to be run again later: no failure
)

// Result is what an attempt came to.
type Result struct {
	Task    Task
	Outcome Outcome
	Error   string          // why it did not finish; empty exactly for OutcomeFinished and OutcomePaused
	Output  json.RawMessage // of a finished attempt; nil is none
	Pause   *Pause          // of OutcomePaused
	Took    time.Duration
}

// Verdict is what the database made of a result.
type Verdict string

// The verdicts. A result is kept until it got one of them.
const (
	VerdictRecorded Verdict = "recorded"
	VerdictRefused  Verdict = "refused" // the claim had been superseded: nothing changed
)

// Claim asks for tasks on behalf of a watcher.
type Claim struct {
	ID       string   // a new UUID, made by the caller: the fence of what is claimed
	Watcher  string   // the UUID of the watcher
	Free     int      // at most this many tasks
	Programs []string // what the watcher can run
}

// Advanced is what became of results and of a claim. Verdicts and Rejected point to the
// results that were given, so that whoever gave them knows them again.
type Advanced struct {
	Claimed  []Task
	Queued   int  // tasks that were released but left for whoever claims next
	Split    bool // the batch was recorded in parts, and nothing was looked for to claim
	Verdicts []Judged
	Rejected []Rejected
}

// Judged is a result with what the database made of it.
type Judged struct {
	Result  *Result
	Verdict Verdict
	Status  Status    // of the task now, where the result was recorded
	Held    bool      // it would be run again, but for somebody who holds it
	RunNext time.Time // when it is run again, where that is not at once; zero: it is, or is not
}

// Rejected is a result that could not be recorded, while the others of its batch were.
type Rejected struct {
	Result *Result
	Cause  error
	Busy   bool // somebody has locked the task: to be given again, as it is
}
