package flow

import "fmt"

// RefusedError says that an action cannot be carried out as things are: a task runs, or is
// in a state in which the action makes no sense. Nothing has changed.
type RefusedError struct {
	Refused []Refusal // at least one
	Effect  Effect    // what would have changed, but for these
}

// Code is that of the first task that is in the way.
func (e *RefusedError) Code() RefusalCode { return e.Refused[0].Code }

func (e *RefusedError) Error() string {
	text := e.Refused[0].Detail
	if more := len(e.Refused) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// Is makes a flow or task that does not exist ErrNotFound.
func (e *RefusedError) Is(target error) bool {
	return target == ErrNotFound && (e.Code() == RefusedFlowNotFound || e.Code() == RefusedTaskNotFound)
}

// PlanChangedError says that tasks have changed since the preview that an action was meant
// by. Nothing has changed by the action. Effect is the preview anew; of a bulk action it
// is Bulk.
type PlanChangedError struct {
	Effect Effect
	Bulk   *BulkEffect
}

func (e *PlanChangedError) Error() string {
	n := e.Effect.Changed()
	if e.Bulk != nil {
		n = e.Bulk.Changed
	}
	return fmt.Sprintf("the tasks have changed since the preview: %d would change now", n)
}

// GuardError is a refusal of the database's guard, in its own words, which are meant for
// the person who acts.
type GuardError struct {
	Message string
	Hint    string // what to do instead; may be empty
}

func (e *GuardError) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + ": " + e.Hint
}
