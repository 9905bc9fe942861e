package web

import (
	"net/http"

	"github.com/d-tsuji/flower/internal/flow"
)

// How much the list of workflows has.
const (
	workflowsShown = 50
	marksShown     = 10 // flows of each
)

// showWorkflows is GET /workflows: what can be registered, how it went last, and which
// definitions are broken, before anybody registers one.
func (s *Site) showWorkflows(r *http.Request, sh *shell) (any, error) {
	q := query{r.URL.Query()}.without("did")
	after := flow.WorkflowID(q.get("after"))
	states, more, err := s.store.Workflows(r.Context(), after, q.get("q"), workflowsShown, marksShown)
	if err != nil {
		return nil, err
	}
	v := newWorkflowsView(states, q, sh.Who)
	if more && len(states) > 0 {
		v.Next = q.with("after", string(states[len(states)-1].ID)).String()
	}
	sh.Title, sh.Active, sh.Every = "Workflows", "Workflows", everyElse
	return v, nil
}
