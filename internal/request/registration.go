package request

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// Example is a body that registers a flow.
const Example = `{"taskId": "sample"}`

// Limits of texts for people, in characters.
const (
	MaxNote         = 2000
	MaxRegisteredBy = 200
	MaxFlowID       = 256
)

// maxShownID limits the bytes of an id that is repeated in an answer: a legal one has
// fewer.
const maxShownID = 4 * flow.MaxWorkflowID

// ShortID returns an id as an answer may repeat it.
func ShortID(id string) string { return problem.Cut(id, maxShownID) }

// Registration is what a request says about a flow that it registers.
type Registration struct {
	TaskID       string
	TaskFlowID   string // the client's own id for the flow; empty: one is made
	Parameters   json.RawMessage
	Priority     *int
	Note         string
	RegisteredBy string
}

// Flow checks a registration and makes of it what the store takes. Who is calling is in
// ctx, the idempotency key in the header.
func (g Registration) Flow(ctx context.Context, h http.Header) (flow.Registration, error) {
	none := flow.Registration{}
	if err := g.check(); err != nil {
		return none, err
	}
	key, err := Key(h)
	if err != nil {
		return none, err
	}
	parameters, err := Parameters(g.Parameters)
	if err != nil {
		return none, err
	}
	// Made before the store is called: when its answer is lost, it can look whether the
	// flow is there.
	made, err := uuid.NewV7()
	if err != nil {
		return none, fmt.Errorf("make a flow's id: %w", err)
	}
	caller := access.Of(ctx)
	r := flow.Registration{
		FlowID:         flow.ID(made.String()),
		WorkflowID:     flow.WorkflowID(g.TaskID),
		Parameters:     parameters,
		Priority:       g.Priority,
		RegisteredBy:   caller.Registers(g.RegisteredBy),
		Note:           g.Note,
		IdempotencyKey: caller.Key(key),
	}
	r.Fingerprint = fingerprint(r, g.TaskFlowID)
	switch {
	case g.TaskFlowID != "":
		r.FlowID, r.OwnID = flow.ID(g.TaskFlowID), true
		if key == "" { // this request's alone: who comes again has another one
			r.Fingerprint += " " + made.String()
		}
	case key == "":
		r.Fingerprint = ""
	}
	return r, nil
}

// check looks at the fields that have limits of their own.
func (g Registration) check() error {
	switch {
	case g.TaskID == "":
		return problem.InvalidValue.Because("taskId is missing: it names the workflow, as in %s", Example)
	case utf8.RuneCountInString(g.TaskID) > flow.MaxWorkflowID:
		return problem.InvalidValue.Because("taskId is longer than %d characters", flow.MaxWorkflowID)
	case utf8.RuneCountInString(g.TaskFlowID) > MaxFlowID:
		return problem.InvalidValue.Because("taskFlowId is longer than %d characters", MaxFlowID)
	case g.Priority != nil && (*g.Priority < flow.MinPriority || *g.Priority > flow.MaxPriority):
		return problem.InvalidValue.Because("priority is %d and must be from %d to %d (smaller is more urgent)",
			*g.Priority, flow.MinPriority, flow.MaxPriority)
	case utf8.RuneCountInString(g.Note) > MaxNote:
		return problem.InvalidValue.Because("note is longer than %d characters", MaxNote)
	case utf8.RuneCountInString(g.RegisteredBy) > MaxRegisteredBy:
		return problem.InvalidValue.Because("registeredBy is longer than %d characters", MaxRegisteredBy)
	}
	return nil
}

// fingerprint tells whether two requests with one key ask for the same: the same workflow,
// parameters and priority, and the same id if they bring one.
func fingerprint(r flow.Registration, ownID string) string {
	asked := []any{r.WorkflowID, r.Parameters, r.Priority}
	if ownID != "" {
		asked = append(asked, ownID)
	}
	sum := sha256.Sum256(Compact(asked))
	return hex.EncodeToString(sum[:])
}
