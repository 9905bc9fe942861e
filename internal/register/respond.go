package register

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// handler answers a request or returns why it cannot.
type handler func(w http.ResponseWriter, r *http.Request) error

// handle makes an http.Handler of one that returns its error.
func (s *Server) handle(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

// only serves a path that takes one method.
func (s *Server) only(method string, h handler) http.Handler {
	return problem.Methods{method: s.handle(h)}.Handler(s.fail)
}

// registerAnswer is what /register answers, always. Fields are only ever added.
type registerAnswer struct {
	Status      string   `json:"status"` // succeeded or failed
	TaskID      string   `json:"taskId"`
	TaskFlowID  string   `json:"taskFlowId,omitempty"`
	Ignored     []string `json:"ignored,omitempty"` // fields of the request that mean nothing here
	Description string   `json:"description,omitempty"`
	RequestID   string   `json:"requestId,omitempty"` // where the log has more
}

// fail answers a request with an error, and logs it if it is ours.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := problem.Of(r.Context(), err, s.limit(r))
	x := exchangeOf(r)
	x.Note(r, f)
	if !isRegister(r) {
		f.Write(w, r)
		return
	}
	f.SetHeaders(w.Header())
	answer := registerAnswer{Status: "failed", TaskID: x.task, Description: problem.Cut(f.Detail, 2<<10)}
	if f.Status == http.StatusInternalServerError {
		answer.RequestID = x.id
	}
	problem.WriteJSON(w, f.Status, answer)
}

// Fail is fail, for other rooms.
func (x *exchange) Fail(w http.ResponseWriter, r *http.Request, err error) { x.server.fail(w, r, err) }

// Note logs the cause of a failure, if it is ours, and no oftener than is of use.
func (x *exchange) Note(r *http.Request, f *problem.Failure) {
	if f.Cause == nil || x.gone(r) {
		return
	}
	attrs := []any{"request", x.id, "method", r.Method, "path", r.URL.EscapedPath()}
	if x.away = f.Code == problem.NoDatabase.Code; x.away {
		x.server.outage.refuse(r.Context(), f.Cause, attrs...)
	} else {
		x.server.errors.log(r.Context(), f, attrs...)
	}
}

// RequestID names the request.
func (x *exchange) RequestID() string { return x.id }

// Answered notes that the database takes what is written, if it does.
func (x *exchange) Answered(ctx context.Context, err error) {
	if err == nil || errors.Is(err, flow.ErrNotFound) {
		x.server.outage.over(ctx)
	}
}

// isRegister reports whether a request is one for the original's door, and gets its
// form of answers.
func isRegister(r *http.Request) bool {
	return r.URL.Path == "/register" || strings.HasPrefix(r.URL.Path, "/register/")
}
