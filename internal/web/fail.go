package web

import (
	"errors"
	"net/http"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// notFound says that there is nothing here, and what it is not.
func notFound(format string, args ...any) *problem.Failure {
	return problem.NoSuchPath.Because(format, args...)
}

// failed is what the page of an error shows.
type failed struct {
	Title, Detail string
	RequestID     string // where the log has more; empty where there is nothing more
	Retry         bool   // it may work in a moment
	Again         bool   // it may work if somebody tries again
}

// titles are for people; every kind has one for programs.
var titles = map[int]string{
	http.StatusBadRequest:          "This cannot be read",
	http.StatusForbidden:           "Not allowed",
	http.StatusNotFound:            "Not found",
	http.StatusMethodNotAllowed:    "Not like this",
	http.StatusUnprocessableEntity: "This does not work",
	http.StatusInternalServerError: "Something is wrong here",
}

// fail answers with the page of an error; whoever is no browser gets what the API answers.
func (s *Site) fail(w http.ResponseWriter, r *http.Request, err error) {
	if moved, ok := errors.AsType[*elsewhere](err); ok {
		http.Redirect(w, r, s.cfg.BasePath+moved.path, http.StatusSeeOther)
		return
	}
	unknown, isUnknown := errors.AsType[*unknownFlow](err)
	switch {
	case !wantsHTML(r) && isUnknown:
		problem.Fail(w, r, unknown.failure())
	case !wantsHTML(r):
		problem.Fail(w, r, err)
	case isUnknown:
		s.failUnknown(w, r, unknown)
	default:
		s.failPage(w, r, problem.Of(r.Context(), err, renderTimeout))
	}
}

// Refuse answers what somebody may not do, before a handler has it.
func (s *Site) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.secured(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, err) })).ServeHTTP(w, r)
}

// wantsHTML reports whether a request is a browser's, for a page.
func wantsHTML(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

func (s *Site) failPage(w http.ResponseWriter, r *http.Request, f *problem.Failure) {
	problem.Note(r, f)
	f.SetHeaders(w.Header())
	form := r.Method == http.MethodPost // which a browser that loads the page again does not send
	body := failed{Title: titles[f.Status], Detail: sentence(f.Detail), Again: f.Status >= http.StatusInternalServerError && !form}
	if body.Title == "" {
		body.Title = f.Title
	}
	switch f.Code {
	case problem.NoDatabase.Code:
		body.Title, body.Retry = "The database is not available", !form
		body.Detail = "Nothing is lost: tasks that run go on, and their results are kept until they can be recorded."
		if form {
			body.Detail = "It is unknown whether this was done. Go back and send the form again in a moment: what is sent twice is done once."
		}
	case problem.QueryTooSlow.Code:
		body.Title = "This took too long"
		if form { // whose statement was cut off, and with it all that it had begun
			body.Detail = "Nothing was done. " + body.Detail
		}
	case problem.Internal.Code:
		body.RequestID = problem.RequestID(r.Context())
		body.Detail = "This is a fault of Flower's, not yours. The log has the details under the id of this request."
	}
	sh := s.newShell(r)
	sh.Title = body.Title
	s.send(w, r, s.render("failed", f.Status, view{sh, body}))
}

// sentence makes one of what is written for programs and people alike.
func sentence(text string) string {
	text = capital(text)
	if text == "" || strings.HasSuffix(text, ".") {
		return text
	}
	return text + "."
}

// noSuchPage is any path that there is nothing at.
func (s *Site) noSuchPage(*http.Request, *shell) (any, error) {
	return nil, notFound("there is no page at this address")
}

// refusedForm returns why a form is shown again: something in it, or something that it is
// about, is not as it must be. Empty: the error is another one.
func refusedForm(r *http.Request, err error) (status int, why string) {
	if errors.Is(err, flow.ErrNotFound) {
		return 0, ""
	}
	f := problem.Of(r.Context(), err, renderTimeout)
	if f.Status == http.StatusUnprocessableEntity || f.Status == http.StatusConflict || f.Status == http.StatusBadRequest {
		return f.Status, sentence(f.Detail)
	}
	return 0, ""
}
