package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

func (a *API) addBulk() {
	for _, kind := range []flow.ActionKind{
		flow.ActionRerun, flow.ActionCancel, flow.ActionHold, flow.ActionResume, flow.ActionSkip, flow.ActionFinish,
	} {
		o := acting(kind, "bulk-"+string(kind), "/bulk/"+string(kind), "many flows", bulkTexts)
		o.text = "By `filter` or by `taskFlowIds`. " + o.text + " `expect` counts tasks here, too, and is required unless `dryRun`. " +
			"Everything in one transaction; a flow of which a task is in the way is left alone and reported."
		add(a, o, func(ctx context.Context, in *struct{ Body bulkBody }) (BulkEffect, error) {
			return a.actOnAll(ctx, kind, in.Body)
		})
	}
}

// bulkBody is what a bulk action takes.
type bulkBody struct {
	Terms
	Filter      *bulkFilter `json:"filter,omitempty" doc:"Which flows; all of it must fit."`
	TaskFlowIDs []string    `json:"taskFlowIds,omitempty" maxItems:"100000" doc:"Which flows, one by one."`
	Scope       string      `json:"scope,omitempty" enum:"failed,all" doc:"Of a rerun."`
}

type bulkFilter struct {
	TaskID       string   `json:"taskId,omitempty" maxLength:"256" doc:"The workflow."`
	Status       []string `json:"status,omitempty" enum:"running,failed,held,cancelled,queued,finished" doc:"As in the list of flows: failed is also a flow that still runs with a task that failed."`
	RegisteredBy string   `json:"registeredBy,omitempty" maxLength:"200"`
	Since        string   `json:"since,omitempty" maxLength:"40" doc:"Registered since: RFC 3339, or 15m, 24h, 7d ago."`
	Until        string   `json:"until,omitempty" maxLength:"40"`
	TaskSeq      int      `json:"taskSeq,omitempty" minimum:"1" maximum:"2000000000" doc:"From here on of failed tasks: then only these change."`
	Program      string   `json:"program,omitempty" maxLength:"256"`
	Reason       string   `json:"reason,omitempty" enum:"failed,timeout,lost,invalid"`
	Fingerprint  string   `json:"fingerprint,omitempty" maxLength:"64"`
	FailedSince  string   `json:"failedSince,omitempty" maxLength:"40"`
	FailedUntil  string   `json:"failedUntil,omitempty" maxLength:"40"`
}

func (a *API) bulkFilter(ctx context.Context, f bulkFilter) (flow.BulkFilter, error) {
	b := flow.BulkFilter{
		WorkflowID: flow.WorkflowID(f.TaskID), Status: f.Status, RegisteredBy: f.RegisteredBy, TaskSeq: f.TaskSeq, Program: f.Program,
		Reason: flow.Reason(f.Reason), Fingerprint: f.Fingerprint,
	}
	var errs []error
	read := func(at *time.Time, name, text string) {
		var err error
		*at, err = a.instant(ctx, name, text)
		errs = append(errs, err)
	}
	read(&b.Since, "since", f.Since)
	read(&b.Until, "until", f.Until)
	read(&b.FailedSince, "failedSince", f.FailedSince)
	read(&b.FailedUntil, "failedUntil", f.FailedUntil)
	return b, errors.Join(errs...)
}

// BulkEffect is what a bulk action does, or would do.
type BulkEffect struct {
	DryRun       bool         `json:"dryRun"`
	Replayed     bool         `json:"replayed"`
	Changed      int          `json:"changed" doc:"How many tasks."`
	CanGo        int          `json:"canGo" doc:"How many tasks can go at once then, and could not before."`
	Flows        []FlowChange `json:"flows" nullable:"false" doc:"In which something changes; in the preview of a failure the first hundred."`
	Refused      []Refusal    `json:"refused" nullable:"false" doc:"At most a hundred: one for each flow that is left alone."`
	RefusedCount int          `json:"refusedCount" doc:"Flows."`
	Plan         string       `json:"plan"`

	action string
}

// FlowChange is how many tasks of a flow change.
type FlowChange struct {
	TaskFlowID string `json:"taskFlowId"`
	Changed    int    `json:"changed"`
}

func newBulkEffect(e flow.BulkEffect) BulkEffect {
	j := BulkEffect{
		DryRun: e.DryRun, Replayed: e.Replayed, Changed: e.Changed, CanGo: e.CanGo, Flows: make([]FlowChange, len(e.Flows)),
		Refused: newRefusals(e.Refused), RefusedCount: e.RefusedCount, Plan: e.Plan,
	}
	for i, f := range e.Flows {
		j.Flows[i] = FlowChange{string(f.Flow), f.Changed}
	}
	return j
}

func (e BulkEffect) header(h http.Header, _ *http.Request) {
	if e.Replayed {
		h.Set("Idempotency-Replayed", "true")
	}
}

func (e BulkEffect) text(view) string {
	verb := "changed"
	if e.DryRun {
		verb = "would change"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s of %s", e.action, verb, number(e.Changed, "task"), number(len(e.Flows), "flow"))
	if e.RefusedCount > 0 {
		fmt.Fprintf(&b, "; left alone: %s", number(e.RefusedCount, "flow"))
	}
	b.WriteString("\n")
	for _, r := range e.Refused {
		b.WriteString("  " + clip(r.Detail, 2*maxError) + "\n")
	}
	if e.DryRun && e.Changed > 0 {
		fmt.Fprintf(&b, "do it: the same request, with \"expect\": %d instead of \"dryRun\"\n", e.Changed)
	}
	return b.String()
}

func (a *API) actOnAll(ctx context.Context, kind flow.ActionKind, body bulkBody) (BulkEffect, error) {
	none := BulkEffect{}
	switch {
	case (body.Filter == nil) == (len(body.TaskFlowIDs) == 0):
		return none, problem.InvalidValue.Because("give filter or taskFlowIds: which flows are meant")
	case !body.DryRun && body.Expect == nil:
		return none, problem.InvalidValue.Because("expect is missing: ask with dryRun first, and give the number of tasks that it has")
	}
	if kind != flow.ActionRerun && body.Scope != "" {
		return none, problem.InvalidValue.Because("scope is for a rerun")
	}
	act := flow.BulkAction{Kind: kind, Scope: flow.Scope(body.Scope)}
	var err error
	for _, id := range body.TaskFlowIDs {
		act.Flows = append(act.Flows, flow.ID(id))
	}
	if body.Filter != nil {
		if act.Filter, err = a.bulkFilter(ctx, *body.Filter); err != nil {
			return none, err
		}
	}
	if act.Terms, err = a.terms(ctx, body.terms()); err != nil {
		return none, err
	}
	asked, err := json.Marshal(body)
	if err != nil {
		return none, err
	}
	act.Asked = string(kind) + " " + string(asked)
	e, err := a.store.ActAll(ctx, act)
	problem.Answered(ctx, err)
	if err != nil {
		return none, a.actError(err)
	}
	if !body.DryRun && e.Changed > 0 && !e.Replayed {
		a.log.InfoContext(ctx, "bulk action", "action", kind, "changed", e.Changed, "flows", len(e.Flows), "refused", e.RefusedCount,
			"by", act.Actor, "request", problem.RequestID(ctx))
	}
	answer := newBulkEffect(e)
	answer.action = string(kind)
	return answer, nil
}

// instant is a moment by the database's clock.
func (a *API) instant(ctx context.Context, name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	m, ok := request.Moment(text)
	if !ok {
		return time.Time{}, problem.InvalidValue.Because("filter.%s: must be %s", name, aMoment)
	}
	if m.Before == 0 {
		return m.At, nil
	}
	now, err := a.store.Now(ctx)
	return now.Add(-m.Before), err
}
