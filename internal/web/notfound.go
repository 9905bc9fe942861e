package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// unknownFlow: there is no flow of this id. Whoever asked may have meant another one.
type unknownFlow struct {
	id         flow.ID
	candidates []flow.ID
}

func (e *unknownFlow) Error() string { return fmt.Sprintf("there is no flow %q", e.id) }

// failure is what programs are told.
func (e *unknownFlow) failure() *problem.Failure {
	f := problem.FlowNotFound.Because("%s", e)
	for _, id := range e.candidates {
		f.Extra.Candidates = append(f.Extra.Candidates, string(id))
	}
	return f
}

// elsewhere: what was asked for is at another place.
type elsewhere struct{ path string }

func (e *elsewhere) Error() string { return "it is at " + e.path }

// minPrefix is how much of an id one must give for a flow to be found.
const minPrefix = 6

// candidatesShown is how many flows are offered for the beginning of an id.
const candidatesShown = 20

// find looks for a flow whose id begins like this.
func (s *Site) find(ctx context.Context, prefix flow.ID) error {
	if len(prefix) < minPrefix {
		return &unknownFlow{id: prefix}
	}
	ids, err := s.store.FindFlow(ctx, string(prefix), candidatesShown)
	switch {
	case err != nil:
		return err
	case len(ids) == 1:
		return &elsewhere{flowPath(ids[0])}
	}
	return &unknownFlow{prefix, ids}
}

func flowPath(id flow.ID) string { return "/flows/" + url.PathEscape(string(id)) }

// notFoundView is what the page of an unknown flow shows.
type notFoundView struct {
	ID         flow.ID
	Candidates []flow.ID
	Newest     []summaryView
}

// summaryView is a flow in a short list.
type summaryView struct {
	flow.Summary
	Look look
}

func (s *Site) failUnknown(w http.ResponseWriter, r *http.Request, e *unknownFlow) {
	page, err := s.store.Flows(r.Context(), flow.Filter{}, flow.Position{}, 3)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := notFoundView{ID: e.id, Candidates: e.candidates}
	for _, f := range page.Flows {
		v.Newest = append(v.Newest, summaryView{f, lookOfSummary(f)})
	}
	sh := s.newShell(r)
	sh.Title, sh.Active, sh.Search = "Not found", "Flows", string(e.id)
	s.send(w, r, s.render("notfound", http.StatusNotFound, view{sh, v}))
}

// search is GET /search: to the flow of this id, or the beginning of one, else to the list
// of those in which the text is.
func (s *Site) search(r *http.Request, _ *shell) (any, error) {
	text := clip(r.URL.Query().Get("q"), maxID)
	list := &elsewhere{"/flows"}
	if text == "" {
		return nil, list
	}
	list.path += "?" + url.Values{"q": {text}}.Encode()
	_, err := s.store.Flow(r.Context(), flow.ID(text))
	switch {
	case err == nil:
		return nil, &elsewhere{flowPath(flow.ID(text))}
	case !errors.Is(err, flow.ErrNotFound):
		return nil, err
	}
	var one *elsewhere
	if err = s.find(r.Context(), flow.ID(text)); errors.As(err, &one) {
		return nil, one
	}
	return nil, list
}
