package web

import (
	"context"

	"github.com/d-tsuji/flower/internal/flow"
)

// Store is what the pages need of the database. Errors are flow.ErrNotFound,
// *flow.InvalidError and flow.ErrUnavailable; all others are unexpected, and are never
// shown.
type Store interface {
	// Flow returns a flow with its tasks.
	Flow(ctx context.Context, id flow.ID) (flow.State, error)

	// Act carries out an action on a flow, or tells in a dry run what it would do. Its
	// errors are *flow.RefusedError and *flow.PlanChangedError, with which the effect is
	// returned as well, and *flow.GuardError and flow.ErrKeyReused.
	Act(ctx context.Context, a flow.Action) (flow.Effect, error)
}
