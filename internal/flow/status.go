package flow

import "strconv"

// Status is the state of a task, as in kr_task_stat.exec_status.
type Status int16

// The states, with the numbers that operators write in SQL.
const (
	Waiting   Status = 0 // to be run when what it depends on is satisfied
	Running   Status = 1 // claimed by a watcher
	Suspended Status = 2 // stopped for a Reason, until a person decides
	Finished  Status = 3
	Ignored   Status = 9 // skipped: counts as finished for what depends on it
)

// Satisfies reports whether a task in this state lets what depends on it run.
func (s Status) Satisfies() bool { return s == Finished || s == Ignored }

// String returns the word of logs and of the API.
func (s Status) String() string {
	switch s {
	case Waiting:
		return "waiting"
	case Running:
		return "running"
	case Suspended:
		return "suspended"
	case Finished:
		return "finished"
	case Ignored:
		return "ignored"
	}
	return "status " + strconv.Itoa(int(s))
}

// Reason says why a task is suspended, as in kr_task_stat.reason.
type Reason string

// The reasons.
const (
	ReasonFailed    Reason = "failed"    // the program returned an error or panicked
	ReasonTimeout   Reason = "timeout"   // it ran longer than the task's timeout
	ReasonLost      Reason = "lost"      // its watcher vanished, and it may not or no longer be rerun
	ReasonInvalid   Reason = "invalid"   // bad parameters, or a program that nobody has
	ReasonCancelled Reason = "cancelled" // somebody stopped it
	ReasonHeld      Reason = "held"      // somebody keeps it from starting
)

// OnLost says what becomes of a task whose watcher vanished while it ran.
type OnLost string

// The two answers.
const (
	OnLostRerun   OnLost = "rerun"   // run it again, at most twice in a row
	OnLostSuspend OnLost = "suspend" // it must not run twice: a person decides
)
