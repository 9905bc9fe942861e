package web

import (
	"context"

	"github.com/d-tsuji/flower/internal/flow"
)

// Store is what the pages need of the database. Errors are flow.ErrNotFound,
// flow.ErrNoTask, *flow.InvalidError, flow.ErrTooSlow and flow.ErrUnavailable; all others
// are unexpected, and are never shown.
type Store interface {
	Lists

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
}
