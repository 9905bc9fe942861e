package web

import (
	"context"
	"net/http"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Lists is what the pages that are about many flows need of the database.
type Lists interface {
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

// routeLists has the pages that are about many flows.
func (s *Site) routeLists(route func(path string, m methods)) {
	route("/", methods{http.MethodGet: s.shown("now", s.showNow)})
	for kind := range bulkWords {
		route("/bulk/"+string(kind), s.bulk(kind))
	}
	route("/failures", methods{http.MethodGet: s.shown("failures", s.showFailures)})
	route("/flows", methods{http.MethodGet: s.shown("flows", s.showFlows)})
	route("/workflows", methods{http.MethodGet: s.shown("workflows", s.showWorkflows)})
	route("/workflows/{task_id}", methods{http.MethodGet: s.shown("workflow", s.showWorkflow)})
	route("/watchers", methods{http.MethodGet: s.shown("watchers", s.showWatchers)})
	route("/events", methods{http.MethodGet: s.shown("events", s.showEvents)})
}
