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
}
