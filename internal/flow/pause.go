package flow

import (
	"encoding/json"
	"time"
)

// Pause is the error of a program that wants to be run again later and holds no worker
// until then. It is no failure, and uses up none of the task's max_attempts.
//
// It is kept with the task, as JSON, and comes back with the next attempt as Task.Pause.
type Pause struct {
	// Until is a time of the database's clock. After is counted from when the pause is
	// recorded, and taken where Until is zero. Neither is at once.
	Until time.Time     `json:"until,omitzero"`
	After time.Duration `json:"-"`

	// Flow must have ended, too, in whatever way.
	Flow ID `json:"flow,omitempty"`

	// Ask suspends the task instead, until a person lets it go on. Who that was is then in
	// Approval.
	Ask bool `json:"ask,omitempty"`

	// Callback ends the pause sooner: by a call to register, whose token's hash was expected
	// before. What it brought is then in Answer.
	Callback bool `json:"callback,omitempty"`

	// Why says what is waited for, to a person: a short sentence. Empty is the time.
	Why string `json:"why,omitempty"`

	// State is whatever the program wants to find again: JSON, not large.
	State json.RawMessage `json:"state,omitempty"`

	// Approval and Answer are for the database to set: who let the task go on, as JSON, and
	// what a call has brought.
	Approval json.RawMessage `json:"approval,omitempty"`
	Answer   *Answer         `json:"answer,omitempty"`
}

// Error makes it an error. People see Why instead.
func (p *Pause) Error() string {
	if p.Why == "" {
		return "the program pauses"
	}
	return "the program pauses: " + p.Why
}
