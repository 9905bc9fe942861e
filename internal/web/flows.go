package web

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/d-tsuji/flower/internal/flow"
)

// How many flows a page of the list has.
const (
	flowsShown = 50
	mostFlows  = 150 // ticked, all of them make an address of less than 8,000 bytes: proxies refuse longer ones
	newestSeen = 100 // new ones are counted so far
)

// showFlows is GET /flows: the flows that the URL chooses, the one registered last first.
// An open page asks with at=, the cursor of the first row that it had: rows stay where they
// are, and what has come since is a number.
func (s *Site) showFlows(r *http.Request, sh *shell) (any, error) {
	ctx, q := r.Context(), query{r.URL.Query()}.without("did")
	f, err := filterOf(q)
	if err != nil {
		return nil, err
	}
	at := readCursor(q.get("at"))
	from := readCursor(q.get("after"))
	if from.IsZero() {
		from = including(at)
	}
	page, err := s.store.Flows(ctx, f, from, pageSize(q))
	if err != nil {
		return nil, err
	}
	counts, err := s.countFlows(ctx, f, q)
	if err != nil {
		return nil, err
	}
	v := newFlowsView(page, counts, f, q, sh.Who)
	if q.get("after") == "" && !at.IsZero() {
		if v.New, err = s.countNewer(ctx, f, at); err != nil {
			return nil, err
		}
	}
	if v.Names, err = s.suggest(ctx); err != nil {
		return nil, err
	}
	sh.Title, sh.Active, sh.Search, sh.AsOf, sh.Every = v.Title, "Flows", f.Text, page.AsOf, everyNow
	if q.get("after") == "" && len(page.Flows) > 0 {
		first := page.Flows[0].Position
		if !at.IsZero() {
			first = at
		}
		sh.Again = q.with("at", cursorOf(first)).String()
	}
	return v, nil
}

func pageSize(q query) int {
	n, err := strconv.Atoi(q.get("limit"))
	if err != nil {
		return flowsShown
	}
	return min(max(n, 1), mostFlows)
}

// countNewer counts the flows that come before a place in the list.
func (s *Site) countNewer(ctx context.Context, f flow.Filter, at flow.Position) (flow.Count, error) {
	f.Since = flow.Moment{At: at.At}
	page, err := s.store.Flows(ctx, f, flow.Position{}, newestSeen+1)
	n := 0
	for _, one := range page.Flows {
		if above(one, at) {
			n++
		}
	}
	return flow.Count{N: min(n, newestSeen), More: n > newestSeen}, err
}

// suggestions are what fields of a filter offer.
type suggestions struct {
	Workflows, Programs []string
}

const suggested = 300

// suggest returns names of workflows, and the programs that watchers have.
func (s *Site) suggest(ctx context.Context) (suggestions, error) {
	var names suggestions
	ids, err := s.store.WorkflowIDs(ctx, suggested)
	if err != nil {
		return names, err
	}
	for _, id := range ids {
		names.Workflows = append(names.Workflows, string(id))
	}
	list, err := s.store.Watchers(ctx)
	for _, w := range list {
		names.Programs = append(names.Programs, w.Programs...)
	}
	slices.Sort(names.Programs)
	names.Programs = slices.Compact(names.Programs)
	return names, err
}
