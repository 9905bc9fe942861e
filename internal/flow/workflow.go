package flow

import (
	"encoding/json"
	"time"
)

// WorkflowID names a workflow: task_id in the tables, taskId in JSON. (The original
// calls it a task's id, but all tasks of a workflow share it.)
type WorkflowID string

// Limits of what a definition and a request may hold. PostgreSQL's columns have the
// first; the others keep one request from stalling everybody else's.
const (
	MaxWorkflowID = 256      // characters of a workflow's id
	MaxTasks      = 10_000   // tasks of a workflow
	MaxOutput     = 64 << 10 // bytes of what a task returns
	MinPriority   = -20
	MaxPriority   = 19
)

// Workflow is a definition: the rows of ms_task_definition under one task_id.
type Workflow struct {
	ID      WorkflowID
	Tasks   []TaskDefinition // in any order
	Version int              // rises with each change; 0: not known

	// Merged: these are the tasks of a flow, whose parameters are mixed with those of
	// requests.
	Merged bool
}

// TaskDefinition is one node of a workflow, one row of ms_task_definition.
type TaskDefinition struct {
	Seq         int
	Program     string
	Priority    int             // -20 to 19, smaller is more urgent
	Parameters  json.RawMessage // a JSON object; nil is {}
	DependsOn   []int           // task_seqs; nil is the previous one, empty is none
	Description string
	MaxAttempts int
	RetryDelay  time.Duration // before the second attempt; doubles with each more
	Timeout     time.Duration // of one attempt; 0 is none
	OnLost      OnLost
	RunIf       string // a condition: where it does not hold the task is skipped; empty is none
}

// Title is what people call the task, as a TaskState's.
func (t TaskDefinition) Title() string { return title(t.Description, t.Program) }
