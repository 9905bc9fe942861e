package flow

import "encoding/json"

// ActionKind is what an operator does to a flow or to a task.
type ActionKind string

// The actions. Each is one UPDATE that a person may as well write by hand.
const (
	ActionRerun   ActionKind = "rerun"   // run again what Scope says
	ActionCancel  ActionKind = "cancel"  // stop what runs, waits or is held; flows that tasks have registered, too
	ActionHold    ActionKind = "hold"    // suspend what waits, and let what runs come to its end
	ActionResume  ActionKind = "resume"  // undo a hold
	ActionApprove ActionKind = "approve" // let a task go on that asks a person
	ActionSkip    ActionKind = "skip"    // ignore a task: what depends on it can go
	ActionFinish  ActionKind = "finish"  // a task was done by hand
)

// Scope is what a rerun runs again.
type Scope string

// The scopes. Tasks that were skipped stay so, and so do those that are held, unless
// ScopeFrom or ScopeOnly names them. What runs is never included: it is refused.
const (
	ScopeFailed Scope = "failed" // what is suspended and not held
	ScopeFrom   Scope = "from"   // a task and everything after it, finished or not
	ScopeOnly   Scope = "only"   // that task alone
	ScopeAll    Scope = "all"    // every task of the flow
)

// Way is how somebody asked for an action.
type Way string

// The ways.
const (
	WayAPI Way = "api"
	WayUI  Way = "ui"
	WayCLI Way = "cli"
	WaySQL Way = "sql" // by hand
)

// Terms are who asks for an action, and on which conditions.
type Terms struct {
	Actor string // the principal's name, for kr_event; empty is the login of the database
	Way   Way    // empty is WaySQL
	Note  string // why, for people to read

	// Key makes a repeated request safe: the same actor's same key gives the same answer,
	// and nothing happens twice. Empty is none. A request that was refused may be repeated.
	Key string

	// Asked is what was asked for, in the words of the request, where the action is not the
	// same each time: "24h ago" is another time. It tells one request from another with the
	// same Key; empty: the action does.
	Asked string

	DryRun bool // change nothing; the answer is the same

	// Expect is how many tasks must change, and Plan the digest of them in a preview. If
	// either no longer fits, nothing happens (*PlanChangedError). nil and "" are anything.
	Expect *int
	Plan   string
}

// Action is what somebody does to one flow, or to one task of it.
type Action struct {
	Kind ActionKind
	Flow ID

	// Seq is the task that is meant; 0 is the whole flow. ScopeFrom, ScopeOnly, ActionApprove,
	// ActionSkip and ActionFinish need one.
	Seq int

	Scope Scope // of ActionRerun; empty is ScopeFailed, or ScopeFrom where Seq names a task

	// Parameters of ActionRerun are merged over those of every task that is run again, key
	// by key at the top level: nil or a JSON object. Those that the flow's registration gave
	// are the whole flow's: tasks that have yet to run take them, too, but with ScopeOnly.
	Parameters json.RawMessage

	Output json.RawMessage // of ActionFinish: what the task has returned; nil leaves it

	Terms
}

// Effect is what an action does, or would do.
type Effect struct {
	DryRun   bool         `json:"dryRun,omitempty"`
	Replayed bool         `json:"replayed,omitempty"` // the answer to an earlier request with the same key
	Tasks    []TaskChange `json:"tasks"`              // those that change, by Flow and Seq
	CanGo    []int        `json:"canGo"`              // tasks that can go at once then, and could not before
	Follow   []int        `json:"follow"`             // tasks that wait already, and come after one that changes
	Kept     int          `json:"kept"`               // tasks that stay as they are, those of Follow included
	Refused  []Refusal    `json:"refused"`            // why nothing happens; empty: it does
	Plan     string       `json:"plan"`               // digest of Tasks, with status and attempt
}

// Changed is how many tasks change.
func (e Effect) Changed() int { return len(e.Tasks) }

// TaskChange is a task that an action changes.
type TaskChange struct {
	Flow    ID     `json:"flow"` // of a cancel it may be another one
	Seq     int    `json:"seq"`
	Title   string `json:"title"`
	From    Status `json:"from"`
	To      Status `json:"to"` // the same for a hold of what runs: it is held if it would wait again
	Attempt int    `json:"attempt"`
}

// RefusalCode says why a task keeps an action from being carried out.
type RefusalCode string

// The codes, as the API has them.
const (
	RefusedTaskRunning      RefusalCode = "task-running"      // it runs
	RefusedDependantRunning RefusalCode = "dependant-running" // something that depends on it runs
	RefusedWrongStatus      RefusalCode = "wrong-status"      // it makes no sense for a task in this state
	RefusedFlowNotFound     RefusalCode = "flow-not-found"
	RefusedTaskNotFound     RefusalCode = "task-not-found"
)

// Refusal is a task because of which nothing happens to its flow.
type Refusal struct {
	Flow   ID          `json:"flow"`
	Seq    int         `json:"seq"` // 0: the flow itself
	Title  string      `json:"title,omitempty"`
	Code   RefusalCode `json:"code"`
	Detail string      `json:"detail"` // a sentence that names the task, and what to do
}
