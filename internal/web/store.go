package web

import (
	"context"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Store is what the pages need of the database. Errors are flow.ErrNotFound,
// flow.ErrNoTask, *flow.InvalidError, flow.ErrTooSlow and flow.ErrUnavailable; all others
// are unexpected, and are never shown.
type Store interface {
	// Flow returns a flow with its tasks.
	Flow(ctx context.Context, id flow.ID) (flow.State, error)

	// Task returns a flow with one of its tasks alone.
	Task(ctx context.Context, key flow.TaskKey) (flow.State, error)

	// Attempts returns the tries at a task, the latest first.
	Attempts(ctx context.Context, key flow.TaskKey) ([]flow.Attempt, error)

	// Log returns lines of the log of an attempt.
	Log(ctx context.Context, f flow.LogFilter) (flow.LogPage, error)

	// Events returns what people have changed.
	Events(ctx context.Context, f flow.EventFilter) (flow.EventPage, error)

	// Flows returns a part of the list of flows.
	Flows(ctx context.Context, f flow.Filter, after flow.Position, limit int) (flow.Page, error)

	// FindFlow returns the ids of flows that begin with a text, at most so many.
	FindFlow(ctx context.Context, prefix string, most int) ([]flow.ID, error)

	// Workflow returns a definition with its last flows.
	Workflow(ctx context.Context, id flow.WorkflowID, last int) (flow.WorkflowState, error)

	// Watchers returns those that are known.
	Watchers(ctx context.Context) ([]flow.WatcherState, error)

	// Attention returns what needs a person, apart from tasks that failed.
	Attention(ctx context.Context) (flow.Attention, error)

	// Register makes a flow. Its errors are those of the HTTP API's.
	Register(ctx context.Context, r flow.Registration) (flow.Flow, error)

	// Act carries out an action on a flow, or tells in a dry run what it would do. Its
	// errors are *flow.RefusedError and *flow.PlanChangedError, with which the effect is
	// returned as well, and *flow.GuardError and flow.ErrKeyReused.
	Act(ctx context.Context, a flow.Action) (flow.Effect, error)

	// Superseded returns the attempts at the tasks of a flow that later ones followed.
	Superseded(ctx context.Context, id flow.ID) ([]flow.Attempt, error)

	// FlowCounts counts the flows that match a filter, by each word.
	FlowCounts(ctx context.Context, f flow.Filter) (flow.FlowCounts, error)

	// ActAll is Act on many flows. Its errors are *flow.PlanChangedError, with which the
	// effect is returned as well, *flow.GuardError, flow.ErrTooMany, flow.ErrKeyReused.
	ActAll(ctx context.Context, b flow.BulkAction) (flow.BulkEffect, error)

	// Throughput returns how everything stands, and how it went within a window, without
	// counts of flows.
	Throughput(ctx context.Context, window, bucket time.Duration) (flow.Stats, error)

	// Running returns tasks that run, the longest first.
	Running(ctx context.Context, limit int) ([]flow.RunningTask, error)

	// Queue returns the tasks that go next, of one workflow or of all.
	Queue(ctx context.Context, workflow flow.WorkflowID, limit int) ([]flow.QueuedTask, time.Time, error)

	// FailureGroups returns what is failed now.
	FailureGroups(ctx context.Context, f flow.FailureFilter) (flow.FailureGroups, error)

	// Workflows returns definitions in the order of their names.
	Workflows(ctx context.Context, after flow.WorkflowID, text string, limit, last int) (states []flow.WorkflowState, more bool, err error)

	// WorkflowIDs returns names of workflows in their order, at most so many.
	WorkflowIDs(ctx context.Context, limit int) ([]flow.WorkflowID, error)

	// WorkflowStats returns how the newest flows of a workflow went.
	WorkflowStats(ctx context.Context, id flow.WorkflowID, window time.Duration) (flow.WorkflowStats, error)

	// Cells returns the tasks of some flows, at most so many of each.
	Cells(ctx context.Context, flows []flow.ID, most int) (map[flow.ID][]flow.TaskState, error)

	// Storage returns what the database holds.
	Storage(ctx context.Context) (flow.Storage, error)

	// DefinitionVersions returns definitions that a workflow has had before a version, the
	// latest first; before 0: all.
	DefinitionVersions(ctx context.Context, id flow.WorkflowID, before, limit int) ([]flow.DefinitionVersion, error)
}
