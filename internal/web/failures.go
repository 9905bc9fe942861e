package web

import (
	"net/http"

	"github.com/d-tsuji/flower/internal/flow"
)

// How much a page of failures has.
const (
	groupsShown   = 100
	inGroupShown  = 10 // flows of the group that is open
	openGroupName = "open"
)

// showFailures is GET /failures: what is failed now, in groups that look alike.
func (s *Site) showFailures(r *http.Request, sh *shell) (any, error) {
	ctx, q := r.Context(), query{r.URL.Query()}.without("did")
	f := flow.FailureFilter{WorkflowID: flow.WorkflowID(q.get("taskId")), Program: q.get("program"), CountTo: flow.MaxCount, Limit: groupsShown}
	var err error
	if f.Since, err = momentOf(q, "since"); err != nil {
		return nil, err
	}
	groups, err := s.store.FailureGroups(ctx, f)
	if err != nil {
		return nil, err
	}
	v := newFailuresView(groups, f, q, sh.Who)
	for i := range v.Groups {
		g := &v.Groups[i]
		if !g.Open {
			continue
		}
		key := g.Key()
		var page flow.Page
		if page, err = s.store.Flows(ctx, flow.Filter{Group: &key}, flow.Position{}, inGroupShown); err != nil {
			return nil, err
		}
		for _, one := range page.Flows {
			g.Shown = append(g.Shown, newFlowRow(one, q, sh.Who))
		}
	}
	if v.Names, err = s.suggest(ctx); err != nil {
		return nil, err
	}
	sh.Title, sh.Active, sh.AsOf, sh.Every = v.Title, "Failures", groups.AsOf, everyNow
	if len(v.Groups) > 0 {
		sh.Icon = "failed"
	}
	return v, nil
}
