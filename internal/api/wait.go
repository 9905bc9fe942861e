package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/d-tsuji/flower/internal/flow"
)

// maxWait is how long a request may wait for a flow.
const maxWait = 5 * time.Minute

// How often a flow that somebody waits for is looked at: at first as often as it takes for
// short ones. All who wait for one flow share a look.
const (
	firstLook = 100 * time.Millisecond
	lastLook  = time.Second
)

type sharedWaits = singleflight.Group // of looks

// Patience returns how long a request wants to wait, for the server that limits its time.
func Patience(r *http.Request) time.Duration {
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !reads || r.URL.RawQuery == "" || !strings.HasPrefix(r.URL.EscapedPath(), Prefix+"flows/") {
		return 0
	}
	d, err := period("wait", r.URL.Query().Get("wait"))
	if err != nil {
		return 0
	}
	return min(d, maxWait)
}

// awaitEnd waits until nothing of a flow runs or can go any more, or until the time is
// over; it is no error that it is. No connection is held meanwhile.
func (a *API) awaitEnd(ctx context.Context, id flow.ID, patience time.Duration) error {
	if patience == 0 {
		return nil
	}
	end := time.NewTimer(patience)
	defer end.Stop()
	for pause := firstLook; ; pause = min(pause*3/2, lastLook) {
		look := a.shared.DoChan(string(id), func() (any, error) {
			// Nobody's alone: whoever asked first may leave.
			shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			return a.store.FlowStatus(shared, id)
		})
		select {
		case seen := <-look:
			if seen.Err != nil {
				return unknownFlow(id, seen.Err)
			}
			if status := seen.Val.(string); status != flow.FlowRunning && status != flow.FlowQueued {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case <-time.After(pause):
		case <-end.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
