package register

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// readyTimeout is shorter than the patience of whoever asks.
const readyTimeout = 2 * time.Second

// healthz says that the process lives, and nothing else.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) error {
	problem.WriteText(w, http.StatusOK, "ok\n")
	return nil
}

// readyz says whether a request would be served: the database answers, its schema fits,
// and no shutdown has begun. It also says whether every rule of the database holds. One
// that does not is no reason to send requests elsewhere: it is the same database for every
// register, flows can be registered all the same, and the sweep is at work. So only who
// asks for ?strict, a monitor and not a load balancer, gets another status for it.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	if s.stopping.Load() {
		problem.WriteText(w, http.StatusServiceUnavailable, "shutting down\n")
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	err := s.store.Ready(ctx)
	exchangeOf(r).Answered(r.Context(), err)
	if err != nil && exchangeOf(r).gone(r) {
		return nil // the one who asked has left; that says nothing about the database
	}
	if was := s.unready.Swap(err != nil); was != (err != nil) { // one line per change
		if err != nil {
			s.log.WarnContext(ctx, "not ready", "err", err)
		} else {
			s.log.InfoContext(ctx, "ready again")
		}
	}
	switch {
	case err == nil:
		status, text := s.checked(ctx, r)
		problem.WriteText(w, status, "ready\n"+text)
	case errors.Is(err, flow.ErrUnavailable), ctx.Err() != nil:
		problem.WriteText(w, http.StatusServiceUnavailable, flow.ErrUnavailable.Error()+"\n")
	default:
		problem.WriteText(w, http.StatusServiceUnavailable, "the database cannot be used; the log says why\n")
	}
	return nil
}

// checked says what the last check of the database's rules found; to strangers, without
// the names of flows.
func (s *Server) checked(ctx context.Context, r *http.Request) (status int, text string) {
	c, err := s.store.Checked(ctx)
	if err != nil && !errors.Is(err, flow.ErrUnavailable) { // an outage is told of elsewhere, once
		s.log.WarnContext(ctx, "what the last check of v_invariant found cannot be read", "err", err)
	}
	if err != nil {
		return http.StatusOK, "v_invariant: not known: what the last check found cannot be read\n"
	}
	status = http.StatusOK
	if len(c.Broken) > 0 && r.URL.Query().Has("strict") {
		status = http.StatusServiceUnavailable
	}
	return status, c.Text(access.Of(r.Context()).Role >= access.Reader)
}

// fromTerminal reports whether a request is not a browser's: those ask for HTML.
func fromTerminal(r *http.Request, _ *mux.RouteMatch) bool {
	return !strings.Contains(r.Header.Get("Accept"), "text/html")
}

// welcome tells people with curl what this is, and those with a browser where there are no
// pages.
func (s *Server) welcome(w http.ResponseWriter, r *http.Request) error {
	host := r.Host
	if host == "" {
		host = s.cfg.local()
	}
	scheme := "http"
	if s.cfg.Access.Encrypted(r) {
		scheme = "https"
	}
	problem.WriteText(w, http.StatusOK, strings.ReplaceAll(welcomeText, "http://HOST", scheme+"://"+host+s.cfg.BasePath))
	return nil
}

const welcomeText = `Flower, a workflow engine on PostgreSQL. This is register: it makes flows, watchers run them.

Register a flow of the workflow "sample":
  curl -X POST http://HOST/register -d '{"taskId": "sample"}'

See how it goes, with the taskFlowId of the answer:
  curl 'http://HOST/api/v1/flows/TASK_FLOW_ID?format=text'

Is it up?
  http://HOST/healthz   the process lives
  http://HOST/readyz    it can register flows
`
