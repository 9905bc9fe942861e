package flow

import "errors"

// The errors that rooms tell apart; everything else is unexpected.
var (
	// ErrNotFound: no such workflow, flow or task.
	ErrNotFound = errors.New("not found")

	// ErrNoTask: the flow exists, but has no such task.
	ErrNoTask = errors.New("the flow has no such task")

	// ErrFlowExists: a flow with the id that somebody has chosen exists already.
	ErrFlowExists = errors.New("a flow with this id exists already")

	// ErrKeyReused: the idempotency key belongs to an earlier, different request.
	ErrKeyReused = errors.New("the idempotency key was used for a different request")

	// ErrTooMany: a bulk action is for more than MaxBulkTasks tasks.
	ErrTooMany = errors.New("these are too many tasks for one request: narrow it down")

	// ErrWaiting: whoever registers has as many flows that wait already as anybody may.
	ErrWaiting = errors.New("too many of your flows wait already: register more when some of them have begun")

	// ErrUnavailable: the database cannot be reached or refuses to work just now.
	// Trying again later can help.
	ErrUnavailable = errors.New("the database is not available")

	// ErrTooSlow: the database was not done with a question in the time that it may take.
	// It was too much at once, or the database is busy.
	ErrTooSlow = errors.New("the database took too long")

	// ErrLocked: somebody else is changing the same in a transaction that is not committed, and
	// was waited for in vain. Nothing has happened.
	ErrLocked = errors.New("somebody else is changing the same, in a transaction that is not committed")

	// ErrNotPermitted: the login of the database must not do that.
	ErrNotPermitted = errors.New("the login of the database does not permit it")

	// ErrShutdown: this watcher is ending. What it runs goes on elsewhere.
	ErrShutdown = errors.New("the watcher is shutting down")

	// ErrFenced: this watcher was declared dead. Others may be running its tasks.
	ErrFenced = errors.New("this watcher's lease has ended and others took over its tasks")
)

// InvalidError says that something given by a person cannot work: the graph of a
// workflow, a parameter, a field of a request. Its text is meant for that person.
type InvalidError struct {
	Subject string // what is wrong: `workflow "daily"`, `parameter "URL"`
	Problem string // in what way, and what would be right
}

func (e *InvalidError) Error() string { return e.Subject + ": " + e.Problem }

// SkippedError says that a task is not to be run: it counts as ignored, and what depends
// on it goes on.
type SkippedError struct{ Reason string }

func (e *SkippedError) Error() string { return e.Reason }
