package web

import (
	"errors"
	"net/http"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// refusal is an error that is shown to the person as it is.
type refusal struct {
	status int
	title  string
	detail string // a sentence, or several
}

func (e *refusal) Error() string { return e.title + ": " + e.detail }

func notFound(detail string) *refusal {
	return &refusal{http.StatusNotFound, "Not found", detail}
}

// failed is what the page of an error shows.
type failed struct {
	Title, Detail string
	RequestID     string // where the log has more; empty where there is nothing more
	Retry         bool   // it may work in a moment
}

// fail answers with the page of an error. What it does not know is internal: its text is
// for the log alone.
func (s *Site) fail(w http.ResponseWriter, r *http.Request, err error) {
	var (
		moved   *elsewhere
		unknown *unknownFlow
	)
	switch {
	case errors.As(err, &moved):
		http.Redirect(w, r, s.cfg.BasePath+moved.path, http.StatusSeeOther)
		return
	case errors.As(err, &unknown):
		s.failUnknown(w, r, unknown)
		return
	}
	sh := s.newShell(r)
	var (
		known   *refusal
		invalid *flow.InvalidError
		role    *access.RefusedError
		status  int
		body    failed
	)
	switch {
	case errors.As(err, &known):
		status, body = known.status, failed{Title: known.title, Detail: known.detail}
	case errors.As(err, &role):
		status, body = http.StatusForbidden, failed{Title: "Not allowed", Detail: capital(role.Error()) + "."}
	case errors.As(err, &invalid):
		status, body = http.StatusUnprocessableEntity, failed{Title: "This does not work", Detail: invalid.Error()}
	case errors.Is(err, flow.ErrWaiting):
		w.Header().Set("Retry-After", "10")
		status, body = http.StatusTooManyRequests, failed{Title: "Too many flows wait", Detail: capital(flow.ErrWaiting.Error()) + "."}
	case errors.Is(err, flow.ErrNotFound):
		status, body = http.StatusNotFound, failed{Title: "Not found", Detail: "There is nothing of this name."}
	case errors.Is(err, flow.ErrKeyReused):
		status, body = http.StatusUnprocessableEntity, failed{
			Title: "This form was sent before", Detail: "It said something else then. Open it anew, and send that.",
		}
	case errors.Is(err, flow.ErrUnavailable), r.Context().Err() != nil:
		w.Header().Set("Retry-After", "5")
		status = http.StatusServiceUnavailable
		body = failed{
			Title: "The database is not available", Retry: true,
			Detail: "Nothing is lost: tasks that run go on, and their results are kept until they can be recorded. This page tries again by itself.",
		}
	default:
		body = failed{
			Title: "Something is wrong here", RequestID: w.Header().Get("X-Request-Id"),
			Detail: "This is a fault of Flower's, not yours. The log has the details under the id of this request.",
		}
		status = http.StatusInternalServerError
	}
	if status >= 500 {
		s.log.ErrorContext(r.Context(), "a page failed", "err", err, "method", r.Method, "path", r.URL.EscapedPath(),
			"request", w.Header().Get("X-Request-Id"))
	}
	sh.Title = body.Title
	s.send(w, r, s.render("failed", status, view{sh, body}))
}

// noSuchPage is any path that there is nothing at.
func (s *Site) noSuchPage(*http.Request, *shell) (any, error) {
	return nil, notFound("There is no page at this address.")
}
