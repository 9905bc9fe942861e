package flow

import (
	"encoding/json"
	"time"
)

// ID names a flow: task_flow_id. It is a UUID where Flower made it and any text in rows
// inserted by hand, so it is never parsed.
type ID string

// Registration asks for a new flow of a workflow.
type Registration struct {
	FlowID     ID   // made by the caller, so that an unanswered request can be repeated
	OwnID      bool // FlowID was chosen by somebody else, and may exist: ErrFlowExists
	WorkflowID WorkflowID

	// Parameters are merged over those of every task, key by key at the top level.
	// nil or a JSON object.
	Parameters json.RawMessage

	Priority     *int    // replaces the priority of every task; nil keeps them
	RegisteredBy string  // who asks, for people to read
	Parent       TaskKey // the task that asks, if it is one
	ParentClaim  string  // of that task: without it there is no flow
	Note         string  // why, for people to read

	// IdempotencyKey makes a repeated request safe: the same key gives the same flow.
	// Empty is none. Fingerprint tells a repeated request from another one with the
	// same key.
	IdempotencyKey string
	Fingerprint    string
}

// Flow is one registered execution of a workflow.
type Flow struct {
	ID           ID
	WorkflowID   WorkflowID
	Version      int // of its workflow, when it was registered; 0 is not known
	RegisteredAt time.Time
	Parameters   json.RawMessage // given with the request: a JSON object; nil is none, or not asked for
	Replayed     bool            // it existed already: registered by an earlier request with the same key
}

// End is how a flow ended.
type End struct {
	Status string // finished, failed, cancelled or deleted; empty: it has not ended

	// The task that failed, or was cancelled, first; and what it says.
	Seq   int
	Title string
	Error string

	// Outputs is a JSON object: what tasks on which no other depends have returned, by
	// task_seq. Of a finished flow alone; nil is none.
	Outputs json.RawMessage
}
