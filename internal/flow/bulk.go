package flow

import "time"

// MaxBulkTasks is how many tasks a bulk action may change.
const MaxBulkTasks = 100_000

// BulkAction does to many flows what Action does to one, in one transaction. A flow of
// which a task is in the way is left alone and reported; the others are changed.
//
// Expect is required unless it is a dry run.
type BulkAction struct {
	Kind  ActionKind // not ActionApprove: whoever is asked answers for one task
	Scope Scope      // of ActionRerun; empty is ScopeFailed

	// Flows are those that are meant, or Filter finds them; not both.
	Flows  []ID
	Filter BulkFilter

	Terms
}

// BulkFilter finds flows and tasks. An empty field is anything; all fields must fit.
//
// Group, Program, Reason, Fingerprint, TaskSeq, FailedSince and FailedUntil are about failed
// tasks: a rerun, a skip and a finish then change those alone (for ScopeFrom: and what
// comes after them), not every failed task of their flows. Without any of them a skip and
// a finish are for every failed task of the flows. Other actions are for the whole of each
// flow in which there is such a task.
type BulkFilter struct {
	WorkflowID   WorkflowID
	Status       []string // of a flow: "failed", "held" … as State.Status
	RegisteredBy string
	Since, Until time.Time // when the flow was registered: from Since on, before Until

	Group                    *FailureKey // the tasks of this group; none of the four after it then
	TaskSeq                  int         // of the definition
	Program                  string
	Reason                   Reason
	Fingerprint              string // of v_failure_group
	FailedSince, FailedUntil time.Time
}

// OfTasks reports whether f is about failed tasks rather than about flows.
func (f BulkFilter) OfTasks() bool {
	return f.Group != nil || f.TaskSeq != 0 || f.Program != "" || f.Reason != "" || f.Fingerprint != "" || !f.FailedSince.IsZero() || !f.FailedUntil.IsZero()
}

// BulkEffect is what a bulk action does, or would do.
type BulkEffect struct {
	DryRun       bool         `json:"dryRun,omitempty"`
	Replayed     bool         `json:"replayed,omitempty"`
	Changed      int          `json:"changed"`      // tasks
	CanGo        int          `json:"canGo"`        // tasks that can go at once then, and could not before
	Flows        []FlowChange `json:"flows"`        // in which something changes, by their ids
	Refused      []Refusal    `json:"refused"`      // at most 100: one for each flow that is left alone
	RefusedCount int          `json:"refusedCount"` // flows
	Plan         string       `json:"plan"`
}

// FlowChange is how many tasks of a flow a bulk action changes.
type FlowChange struct {
	Flow    ID  `json:"flow"`
	Changed int `json:"changed"`
}
