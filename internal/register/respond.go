package register

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// kind is one sort of failure: the status that answers it, and a code that programs may
// rely on.
type kind struct {
	status     int
	code       string
	title      string
	retryAfter int // seconds after which to try again; 0 is never
}

// The kinds, which is also the only table from failures to statuses.
var (
	malformedBody    = kind{http.StatusBadRequest, "malformed-body", "Malformed body", 0}
	malformedHeader  = kind{http.StatusBadRequest, "malformed-header", "Malformed header", 0}
	malformedPath    = kind{http.StatusBadRequest, "malformed-path", "Malformed path", 0}
	invalidFilter    = kind{http.StatusBadRequest, "invalid-filter", "Invalid query", 0}
	unauthenticated  = kind{http.StatusUnauthorized, "unauthenticated", "Who is calling?", 0}
	notServed        = kind{http.StatusForbidden, "unauthenticated", "Not served here", 0}
	roleTooLow       = kind{http.StatusForbidden, "role-too-low", "Role too low", 0}
	readOnly         = kind{http.StatusForbidden, "read-only", "Read-only", 0}
	crossOrigin      = kind{http.StatusForbidden, "cross-origin", "Cross-origin request", 0}
	noSuchPath       = kind{http.StatusNotFound, "no-such-path", "No such path", 0}
	workflowNotFound = kind{http.StatusNotFound, "workflow-not-found", "Workflow not found", 0}
	flowNotFound     = kind{http.StatusNotFound, "flow-not-found", "Flow not found", 0}
	callbackNotFound = kind{http.StatusNotFound, "callback-not-found", "Nobody waits for this call", 0}
	callbackAnswered = kind{http.StatusConflict, "callback-answered", "Answered before", 0}
	callbackLate     = kind{http.StatusConflict, "callback-late", "Too late", 0}
	methodNotAllowed = kind{http.StatusMethodNotAllowed, "method-not-allowed", "Method not allowed", 0}
	bodyTooSlow      = kind{http.StatusRequestTimeout, "body-too-slow", "Body too slow", 0}
	bodyTooLarge     = kind{http.StatusRequestEntityTooLarge, "body-too-large", "Body too large", 0}
	pathTooLong      = kind{http.StatusRequestURITooLong, "path-too-long", "Path too long", 0}
	unknownHost      = kind{http.StatusMisdirectedRequest, "unknown-host", "Unknown host", 0}
	invalidValue     = kind{http.StatusUnprocessableEntity, "invalid-value", "Invalid value", 0}
	workflowBroken   = kind{http.StatusUnprocessableEntity, "workflow-broken", "Broken workflow", 0}
	keyReused        = kind{http.StatusUnprocessableEntity, "idempotency-key-reused", "Idempotency-Key reused", 0}
	internal         = kind{http.StatusInternalServerError, "internal", "Internal error", 0}
	tooManyTokens    = kind{http.StatusTooManyRequests, "too-many-requests", "Too many wrong tokens", 1}
	tooManyRequests  = kind{http.StatusServiceUnavailable, "too-many-requests", "Too many requests", 1}
	noDatabase       = kind{http.StatusServiceUnavailable, "database-unavailable", "Database unavailable", 5}
)

// failure is an answer that is no success. Its detail is for the caller, its cause for
// the log.
type failure struct {
	kind
	detail string
	cause  error
}

func (f *failure) Error() string { return f.code + ": " + f.detail }

// because makes a failure of this kind; the text is for the caller.
func (k kind) because(format string, args ...any) *failure {
	return &failure{kind: k, detail: fmt.Sprintf(format, args...)}
}

// classify finds what to answer to an error. What it does not know is internal, and
// its text stays here.
func classify(ctx context.Context, err error) *failure {
	var (
		known   *failure
		invalid *flow.InvalidError
	)
	if f := refusal(err); f != nil {
		return f
	}
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &invalid):
		return workflowBroken.because("%s", invalid.Error())
	case errors.Is(err, flow.ErrKeyReused):
		return keyReused.because("this Idempotency-Key was used for a different request; " +
			"use another key for another request")
	case errors.Is(err, flow.ErrUnavailable):
		f := noDatabase.because("the database is not available; try again in a few seconds")
		f.cause = err
		return f
	case ctx.Err() != nil:
		f := noDatabase.because("no answer came within %s; it is unknown whether the request was carried out, "+
			"and safe to repeat it if it had an Idempotency-Key", requestTimeout)
		f.cause = err
		return f
	}
	f := internal.because("internal error; the log has the details under this request's id")
	f.cause = err
	return f
}

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

// handlers are those of one path, by method. HEAD comes with GET.
type handlers map[string]handler

// methods serves a path. It is here and not in mux's matchers because those refuse HEAD
// and answer 405 without Allow.
func (s *Server) methods(byMethod handlers) http.Handler {
	var allowed []string
	for method := range byMethod {
		allowed = append(allowed, method)
		if method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	allow := strings.Join(allowed, ", ")
	return s.handle(func(w http.ResponseWriter, r *http.Request) error {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if h, ok := byMethod[method]; ok {
			return h(w, r)
		}
		w.Header().Set("Allow", allow)
		return methodNotAllowed.because("this path takes %s only", allow)
	})
}

// registerAnswer is what /register answers, always. Fields are only ever added.
type registerAnswer struct {
	Status      string `json:"status"` // succeeded or failed
	TaskID      string `json:"taskId"`
	TaskFlowID  string `json:"taskFlowId,omitempty"`
	Description string `json:"description,omitempty"`
	RequestID   string `json:"requestId,omitempty"` // where the log has more
}

// problem is what all other paths answer on failure (RFC 9457).
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
	Instance  string `json:"instance"`
	RequestID string `json:"requestId"`
}

// fail answers a request with an error, and logs it if it is ours.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := classify(r.Context(), err)
	x := exchangeOf(r)
	if f.cause != nil && !x.gone(r) {
		attrs := []any{"request", x.id, "method", r.Method, "path", r.URL.EscapedPath()}
		if x.away = f.code == noDatabase.code; x.away {
			s.outage.refuse(r.Context(), f.cause, attrs...)
		} else {
			s.errors.log(r.Context(), f, attrs...)
		}
	}
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	if f.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="flower"`)
	}
	if f.status == http.StatusRequestEntityTooLarge || f.status == http.StatusRequestTimeout {
		w.Header().Set("Connection", "close") // the rest of the body is not wanted
	}
	detail := cut(f.detail, 2<<10)
	if isRegister(r) {
		answer := registerAnswer{Status: "failed", TaskID: x.task, Description: detail}
		if f.status == http.StatusInternalServerError {
			answer.RequestID = x.id
		}
		writeJSON(w, f.status, answer)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	writeJSON(w, f.status, problem{
		Type: "about:blank", Title: f.title, Status: f.status, Code: f.code,
		Detail: detail, Instance: r.URL.EscapedPath(), RequestID: x.id,
	})
}

// answered notes that the database takes what is written, if it does. That it can be read
// says little: it may be read-only.
func (s *Server) answered(r *http.Request, err error) {
	if err == nil || errors.Is(err, flow.ErrNotFound) {
		s.outage.over(r.Context())
	}
}

// isRegister reports whether a request is one for the original's door, and gets its
// form of answers.
func isRegister(r *http.Request) bool {
	return r.URL.Path == "/register" || strings.HasPrefix(r.URL.Path, "/register/")
}

// writeJSON answers with v. It sets the Content-Type if nobody did.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false) // for people with curl; browsers are told not to sniff
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("encode an answer: %v", err)) // its types are all ours
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	write(w, status, body.Bytes())
}

// writeText answers with plain text.
func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	write(w, status, []byte(text))
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client is gone
}

// cut shortens a text to n bytes, at a character's border.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
