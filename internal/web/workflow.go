package web

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// How much the page of a workflow has.
const (
	versionsShown = 20
	versionLines  = 20  // of what a version has changed
	gridTasks     = 100 // rows of the grid
	smallWorkflow = 30  // tasks: the grid of a larger one has fewer flows unless more are asked for
)

// gridSizes are how many flows a grid can have.
var gridSizes = []int{25, 50, 100}

// period is a time that statistics can be of.
type period struct {
	Name, Words string
	Span        time.Duration
}

var spans = []period{
	{"24h", "in the last 24 hours", 24 * time.Hour}, {"7d", "in the last 7 days", 7 * 24 * time.Hour}, {"30d", "in the last 30 days", 30 * 24 * time.Hour},
}

// showWorkflow is GET /workflows/{id}: how it has behaved, and what it is made of.
func (s *Site) showWorkflow(r *http.Request, sh *shell) (any, error) {
	ctx, q := r.Context(), query{r.URL.Query()}.without("did")
	id, err := pathID(r, "task_id")
	if err != nil {
		return nil, err
	}
	v, err := s.readWorkflow(ctx, flow.WorkflowID(id), q)
	if err != nil {
		return nil, err
	}
	span := spans[1]
	for _, one := range spans {
		if one.Name == q.get("window") {
			span = one
		}
	}
	if v.Stats, err = s.store.WorkflowStats(ctx, v.ID, span.Span); err != nil {
		return nil, err
	}
	flows := make([]flow.ID, len(v.Last))
	for i, f := range v.Last {
		flows[i] = f.ID
	}
	cells, err := s.store.Cells(ctx, flows, gridTasks)
	if err != nil {
		return nil, err
	}
	v.fill(cells, span, q)
	v.Register = registerButton(v.WorkflowState, sh.Who).unless(v.Deleted, "It was deleted")
	v.Register.Primary = true
	sh.Title, sh.Active, sh.AsOf, sh.Every = string(v.ID)+" · Workflows", "Workflows", v.Stats.AsOf, everyElse
	return v, nil
}

// readWorkflow reads a definition: the present one, or the version that the URL names. One
// that was deleted has its versions still.
func (s *Site) readWorkflow(ctx context.Context, id flow.WorkflowID, q query) (*workflowView, error) {
	most, _ := strconv.Atoi(q.get("flows"))
	size := 0
	for _, n := range gridSizes {
		if most == n {
			size = n
		}
	}
	state, err := s.store.Workflow(ctx, id, cmp.Or(size, gridSizes[1]))
	deleted := errors.Is(err, flow.ErrNotFound)
	if err != nil && !deleted {
		return nil, err
	}
	versions, err := s.store.DefinitionVersions(ctx, id, 0, versionsShown+1)
	if err != nil && !errors.Is(err, flow.ErrNotFound) {
		return nil, err
	}
	if deleted {
		state.ID = id
		page, err := s.store.Flows(ctx, flow.Filter{WorkflowID: id}, flow.Position{}, cmp.Or(size, gridSizes[1]))
		if err != nil {
			return nil, err
		}
		if state.Last = page.Flows; len(versions) == 0 && len(state.Last) == 0 {
			return nil, notFound("there is no workflow %q", id)
		}
	}
	if size == 0 {
		if size = gridSizes[1]; len(state.Workflow.Tasks) > smallWorkflow {
			size = gridSizes[0]
		}
		state.Last = state.Last[:min(len(state.Last), size)]
	}
	v := &workflowView{WorkflowState: state, Deleted: deleted, Size: size}
	return v, s.readVersion(ctx, v, versions, q)
}

// readVersion takes the definition that is shown from the versions, if it is not the
// present one.
func (s *Site) readVersion(ctx context.Context, v *workflowView, versions []flow.DefinitionVersion, q query) error {
	v.Present = flow.Definition{
		Workflow: v.Workflow, Description: v.Description, MaxRunningFlows: v.MaxRunningFlows, MaxRunningTasks: v.MaxRunningTasks,
	}
	v.setVersions(versions, q)
	wanted, err := strconv.Atoi(q.get("version"))
	switch {
	case err != nil && !v.Deleted:
		v.Shown = v.Present
		return nil
	case err != nil: // the last one that there was
		for _, one := range versions {
			if one.Definition != nil {
				v.Shown, v.Of = *one.Definition, one.Version
				return nil
			}
		}
		return nil
	}
	some, err := s.store.DefinitionVersions(ctx, v.ID, wanted+1, 1)
	if err != nil {
		return err
	}
	if len(some) == 0 || some[0].Version != wanted {
		return notFound("workflow %q has no version %d", v.ID, wanted)
	}
	if v.Of = wanted; some[0].Definition != nil {
		v.Shown = *some[0].Definition
	}
	return nil
}
