// Package problem has the failures that Flower's HTTP side answers: their kinds, with
// stable codes, the one table from errors to kinds, and the form of the answer,
// problem+json (RFC 9457).
//
// Whoever serves a request returns an error, or hands it to Fail. The server, which is
// outside of everything, has said in the request's context what that does: it answers, and
// writes to the log what only the log may know.
package problem

import (
	"fmt"
	"net/http"
	"slices"
)

// Kind is one sort of failure: the status that answers it, and a code that programs may
// rely on.
type Kind struct {
	Status     int
	Code       string
	Title      string
	RetryAfter int // seconds after which to try again; 0 is never
}

// The kinds. A code stays what it is; new ones may come.
var (
	MalformedBody   = kind(http.StatusBadRequest, "malformed-body", "Malformed body", 0)
	MalformedHeader = kind(http.StatusBadRequest, "malformed-header", "Malformed header", 0)
	MalformedPath   = kind(http.StatusBadRequest, "malformed-path", "Malformed path", 0)
	InvalidCursor   = kind(http.StatusBadRequest, "invalid-cursor", "Invalid cursor", 0)
	InvalidFilter   = kind(http.StatusBadRequest, "invalid-filter", "Invalid query", 0)

	Unauthenticated = kind(http.StatusUnauthorized, "unauthenticated", "Who is calling?", 0)
	NotServed       = kind(http.StatusForbidden, "unauthenticated", "Not served here", 0)
	RoleTooLow      = kind(http.StatusForbidden, "role-too-low", "Role too low", 0)
	ReadOnly        = kind(http.StatusForbidden, "read-only", "Read-only", 0)
	CrossOrigin     = kind(http.StatusForbidden, "cross-origin", "Cross-origin request", 0)

	NoSuchPath       = kind(http.StatusNotFound, "no-such-path", "No such path", 0)
	WorkflowNotFound = kind(http.StatusNotFound, "workflow-not-found", "Workflow not found", 0)
	FlowNotFound     = kind(http.StatusNotFound, "flow-not-found", "Flow not found", 0)
	TaskNotFound     = kind(http.StatusNotFound, "task-not-found", "Task not found", 0)
	AttemptNotFound  = kind(http.StatusNotFound, "attempt-not-found", "Attempt not found", 0)
	CallbackNotFound = kind(http.StatusNotFound, "callback-not-found", "Nobody waits for this call", 0)

	MethodNotAllowed = kind(http.StatusMethodNotAllowed, "method-not-allowed", "Method not allowed", 0)
	BodyTooSlow      = kind(http.StatusRequestTimeout, "body-too-slow", "Body too slow", 0)

	TaskRunning      = kind(http.StatusConflict, "task-running", "Task is running", 0)
	DependantRunning = kind(http.StatusConflict, "dependant-running", "A task that depends on it is running", 0)
	WrongStatus      = kind(http.StatusConflict, "wrong-status", "Wrong status", 0)
	PlanChanged      = kind(http.StatusConflict, "plan-changed", "The tasks have changed", 0)
	FlowExists       = kind(http.StatusConflict, "flow-exists", "Flow exists", 0)
	CallbackAnswered = kind(http.StatusConflict, "callback-answered", "Answered before", 0)
	CallbackLate     = kind(http.StatusConflict, "callback-late", "Too late", 0)

	VersionChanged = kind(http.StatusPreconditionFailed, "version-changed", "The workflow has changed", 0)

	BodyTooLarge = kind(http.StatusRequestEntityTooLarge, "body-too-large", "Body too large", 0)
	PathTooLong  = kind(http.StatusRequestURITooLong, "path-too-long", "Path too long", 0)
	UnknownHost  = kind(http.StatusMisdirectedRequest, "unknown-host", "Unknown host", 0)

	InvalidValue   = kind(http.StatusUnprocessableEntity, "invalid-value", "Invalid value", 0)
	UnknownField   = kind(http.StatusUnprocessableEntity, "unknown-field", "Unknown field", 0)
	WorkflowBroken = kind(http.StatusUnprocessableEntity, "workflow-broken", "Broken workflow", 0)
	KeyReused      = kind(http.StatusUnprocessableEntity, "idempotency-key-reused", "Idempotency-Key reused", 0)
	TooMany        = kind(http.StatusUnprocessableEntity, "too-many", "Too many tasks", 0)

	Internal        = kind(http.StatusInternalServerError, "internal", "Internal error", 0)
	TooManyTokens   = kind(http.StatusTooManyRequests, "too-many-requests", "Too many wrong tokens", 1)
	TooManyWait     = kind(http.StatusTooManyRequests, "too-many-waiting", "Too many flows wait", 10)
	TooManyRequests = kind(http.StatusServiceUnavailable, "too-many-requests", "Too many requests", 1)
	NoDatabase      = kind(http.StatusServiceUnavailable, "database-unavailable", "Database unavailable", 5)
	QueryTooSlow    = kind(http.StatusServiceUnavailable, "query-too-slow", "Query too slow", 30)
	ShuttingDown    = kind(http.StatusServiceUnavailable, "shutting-down", "Shutting down", 5)
)

var kinds []Kind

func kind(status int, code, title string, retryAfter int) Kind {
	k := Kind{status, code, title, retryAfter}
	kinds = append(kinds, k)
	return k
}

// Kinds returns all kinds, in the order of their statuses.
func Kinds() []Kind {
	sorted := slices.Clone(kinds)
	slices.SortStableFunc(sorted, func(a, b Kind) int { return a.Status - b.Status })
	return sorted
}

// Because makes a failure of this kind; the text is for the caller.
func (k Kind) Because(format string, args ...any) *Failure {
	return &Failure{Kind: k, Detail: fmt.Sprintf(format, args...)}
}
