package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// What the document says of each action.
var actionTexts = map[flow.ActionKind]string{
	flow.ActionRerun: "`failed` (the usual scope): what is suspended and not held. `from`: a task and everything after it, finished or not. " +
		"`only`: that task alone. `all`: every task. A running task in the scope is refused: nothing changes.",
	flow.ActionCancel:  "Stops what runs, and suspends every task that waits; what is held is cancelled, too. A rerun takes it up again.",
	flow.ActionHold:    "Suspends every waiting task, and lets running ones come to their end.",
	flow.ActionResume:  "Undoes a hold.",
	flow.ActionApprove: "Lets a task go on that asks a person (`asks`); who that was is its `output`. One that asks nobody is refused. A no is a cancel.",
	flow.ActionSkip:    "Counts as done without having run: what depends on it can go.",
	flow.ActionFinish:  "It was done by hand: what depends on it can go.",
}

// taskTexts say it of an action whose path names the task, and bulkTexts of one on many flows,
// where that is something else.
var (
	taskTexts = map[flow.ActionKind]string{
		flow.ActionRerun: "`from` (the usual scope): the task and everything after it, finished or not. `only`: the task alone. " +
			"A running task in the scope is refused: nothing changes.",
		flow.ActionCancel: "Stops the task if it runs, and suspends it if it waits or is held. A rerun takes it up again.",
		flow.ActionHold:   "Suspends the task if it waits. If it runs it may come to its end, and is held where it would be tried again.",
	}
	bulkTexts = map[flow.ActionKind]string{
		flow.ActionRerun: "`failed` (the usual scope): of a filter the failed tasks that it finds, of named flows all that is suspended and not held. " +
			"`all`: every task.",
		flow.ActionSkip:   "What failed counts as done without having run: what depends on it can go.",
		flow.ActionFinish: "What failed was done by hand: what depends on it can go.",
	}
)

// actionWords are its summaries, of whatever it is for.
var actionWords = map[flow.ActionKind]string{
	flow.ActionRerun: "Run %s again", flow.ActionCancel: "Cancel %s", flow.ActionHold: "Hold %s", flow.ActionResume: "Resume %s",
	flow.ActionApprove: "Approve %s", flow.ActionSkip: "Skip %s", flow.ActionFinish: "Mark %s as finished",
}

// acting makes an operation of an action. texts say what it does, where that is something
// else than to a flow.
func acting(kind flow.ActionKind, id, path, what string, texts map[flow.ActionKind]string) operation {
	return operation{
		id: id, method: http.MethodPost, path: path, tag: tagAct, need: access.Operator, formats: asText, takesKey: true,
		summary: fmt.Sprintf(actionWords[kind], what),
		text: cmp.Or(texts[kind], actionTexts[kind]) + " `dryRun` answers exactly as the real call would, and changes nothing; give its `plan`, or the number " +
			"of tasks as `expect`, to be refused (plan-changed) if something has changed since.",
	}
}

func (a *API) addActions() {
	const flows, task = "/flows/{taskFlowId}/", "/flows/{taskFlowId}/tasks/{taskExecSeq}/"
	add(a, acting(flow.ActionRerun, "rerun-flow", flows+"rerun", "a flow or a part of it", nil), a.rerunFlow)
	for _, kind := range []flow.ActionKind{flow.ActionCancel, flow.ActionHold, flow.ActionResume} {
		add(a, acting(kind, string(kind)+"-flow", flows+string(kind), "a flow", nil), func(ctx context.Context, in *struct {
			FlowPath
			Body *Terms
		},
		) (Effect, error) {
			return a.act(ctx, kind, in.FlowPath, 0, orZero(in.Body).terms(), nil)
		})
	}
	add(a, acting(flow.ActionRerun, "rerun-task", task+"rerun", "a task and what comes after it", taskTexts), a.rerunTask)
	for _, kind := range []flow.ActionKind{flow.ActionCancel, flow.ActionHold, flow.ActionResume, flow.ActionApprove, flow.ActionSkip} {
		add(a, acting(kind, string(kind)+"-task", task+string(kind), "a task", taskTexts), func(ctx context.Context, in *struct {
			TaskPath
			Body *Terms
		},
		) (Effect, error) {
			return a.actOnTask(ctx, kind, in.TaskPath, orZero(in.Body).terms(), nil)
		})
	}
	add(a, acting(flow.ActionFinish, "finish-task", task+"finish", "a task", taskTexts), func(ctx context.Context, in *struct {
		TaskPath
		Body *finishBody
	},
	) (Effect, error) {
		b := orZero(in.Body)
		return a.actOnTask(ctx, flow.ActionFinish, in.TaskPath, b.terms(), func(act *flow.Action) { act.Output = []byte(b.Output) })
	})
	a.addBulk()
}

// FlowPath is where a flow is.
type FlowPath struct {
	TaskFlowID string `path:"taskFlowId" doc:"The flow's id, the whole of it."`
}

// Terms are what every action takes.
type Terms struct {
	Note   string `json:"note,omitempty" maxLength:"2000" doc:"Why; kept with the event."`
	DryRun bool   `json:"dryRun,omitempty" doc:"Change nothing, and answer the same."`
	Expect *int   `json:"expect,omitempty" minimum:"0" doc:"How many tasks the preview had."`
	Plan   string `json:"plan,omitempty" maxLength:"200" doc:"The plan of the preview."`
}

func (b Terms) terms() flow.Terms {
	return flow.Terms{Note: b.Note, DryRun: b.DryRun, Expect: b.Expect, Plan: b.Plan}
}

type finishBody struct {
	Terms
	Output value `json:"output,omitempty" doc:"What the task has returned, for those that come after it."`
}

type rerunBody struct {
	Terms
	Scope      string `json:"scope,omitempty" enum:"failed,from,only,all"`
	From       int    `json:"from,omitempty" minimum:"1" maximum:"2000000000" doc:"taskExecSeq of the scopes from and only."`
	Parameters object `json:"parameters,omitempty" doc:"An object, merged over the parameters of every task that runs again; what the flow's request gave, but with the scope only, also over those of tasks that have yet to run."`
}

// Effect is what an action does, or would do.
type Effect struct {
	DryRun   bool         `json:"dryRun"`
	Replayed bool         `json:"replayed" doc:"The answer to an earlier request with the same Idempotency-Key."`
	Changed  int          `json:"changed" doc:"How many tasks."`
	Tasks    []TaskChange `json:"tasks" nullable:"false"`
	CanGo    []int        `json:"canGo" nullable:"false" doc:"Tasks that can go at once then, and could not before."`
	Follow   []int        `json:"follow" nullable:"false" doc:"Tasks that wait already, and come after one that changes."`
	Kept     int          `json:"kept" doc:"Tasks that stay as they are."`
	Refused  []Refusal    `json:"refused" nullable:"false"`
	Plan     string       `json:"plan"`

	action string
	flow   string
}

// TaskChange is a task that changes.
type TaskChange struct {
	TaskFlowID  string `json:"taskFlowId" doc:"A cancel may reach flows that tasks have registered."`
	TaskExecSeq int    `json:"taskExecSeq"`
	Title       string `json:"title"`
	From        string `json:"from"`
	To          string `json:"to"`
	Attempt     int    `json:"attempt"`
}

// Refusal is what is in the way.
type Refusal struct {
	TaskFlowID  string `json:"taskFlowId"`
	TaskExecSeq *int   `json:"taskExecSeq" doc:"Null: the flow itself."`
	Code        string `json:"code"`
	Detail      string `json:"detail"`
}

func (e Effect) header(h http.Header, _ *http.Request) {
	if e.Replayed {
		h.Set("Idempotency-Replayed", "true")
	}
}

func (a *API) rerunFlow(ctx context.Context, in *struct {
	FlowPath
	Body *rerunBody
},
) (Effect, error) {
	b := orZero(in.Body)
	named := b.Scope == string(flow.ScopeFrom) || b.Scope == string(flow.ScopeOnly)
	switch {
	case named && b.From == 0:
		return Effect{}, problem.InvalidValue.Because("scope %q needs from: the task that is meant, as in {\"scope\": %q, \"from\": 3}", b.Scope, b.Scope)
	case !named && b.From != 0:
		return Effect{}, problem.InvalidValue.Because(`from goes with the scopes "from" and "only"`)
	}
	return a.rerun(ctx, in.FlowPath, b.From, b)
}

func (a *API) rerunTask(ctx context.Context, in *struct {
	TaskPath
	Body *rerunBody
},
) (Effect, error) {
	b := orZero(in.Body)
	switch {
	case b.From != 0:
		return Effect{}, problem.InvalidValue.Because("from is for a flow's rerun: here the path names the task")
	case b.Scope != "" && b.Scope != string(flow.ScopeFrom) && b.Scope != string(flow.ScopeOnly):
		return Effect{}, problem.InvalidValue.Because(`scope must be "from" (this task and what comes after it) or "only"`)
	}
	seq, err := in.seq()
	if err != nil {
		return Effect{}, err
	}
	if b.Scope == "" {
		b.Scope = string(flow.ScopeFrom)
	}
	return a.rerun(ctx, FlowPath{in.TaskFlowID}, seq, b)
}

func (a *API) rerun(ctx context.Context, p FlowPath, seq int, b rerunBody) (Effect, error) {
	parameters, err := request.Parameters([]byte(b.Parameters))
	if err != nil {
		return Effect{}, err
	}
	return a.act(ctx, flow.ActionRerun, p, seq, b.terms(), func(act *flow.Action) {
		act.Scope, act.Parameters = flow.Scope(b.Scope), parameters
	})
}

func (a *API) actOnTask(ctx context.Context, kind flow.ActionKind, p TaskPath, terms flow.Terms, more func(*flow.Action)) (Effect, error) {
	seq, err := p.seq()
	if err != nil {
		return Effect{}, err
	}
	return a.act(ctx, kind, FlowPath{p.TaskFlowID}, seq, terms, more)
}

// act carries out an action on one flow. Its whole id must be given: an action must not
// meet another flow than was meant.
func (a *API) act(ctx context.Context, kind flow.ActionKind, p FlowPath, seq int, terms flow.Terms, more func(*flow.Action)) (Effect, error) {
	id, err := request.ID(p.TaskFlowID)
	if err != nil {
		return Effect{}, err
	}
	if terms, err = a.terms(ctx, terms); err != nil {
		return Effect{}, err
	}
	act := flow.Action{Kind: kind, Flow: flow.ID(id), Seq: seq, Terms: terms}
	if more != nil {
		more(&act)
	}
	e, err := a.store.Act(ctx, act)
	problem.Answered(ctx, err)
	if err != nil {
		return Effect{}, a.begunID(ctx, id, a.actError(err))
	}
	if !terms.DryRun && e.Changed() > 0 && !e.Replayed {
		a.log.InfoContext(ctx, "action", "action", kind, "flow", id, "seq", seq, "changed", e.Changed(), "by", terms.Actor,
			"request", problem.RequestID(ctx))
	}
	answer := newEffect(e)
	answer.action, answer.flow = string(kind), id
	return answer, nil
}

// begunID adds to the failure for a flow that does not exist those whose ids begin like that:
// for reading the beginning would do.
func (a *API) begunID(ctx context.Context, id string, err error) error {
	f, ok := errors.AsType[*problem.Failure](err)
	if !ok || f.Code != problem.FlowNotFound.Code || utf8.RuneCountInString(id) < minPrefix {
		return err
	}
	ids, lookErr := a.store.FindFlow(ctx, id, maxCandidates)
	if lookErr != nil || len(ids) == 0 {
		return err
	}
	f.Detail = fmt.Sprintf("there is no flow %q: an action takes the whole id, and candidates has those that begin so", request.ShortID(id))
	for _, c := range ids {
		f.Extra.Candidates = append(f.Extra.Candidates, string(c))
	}
	return f
}

// terms says who acts, and with which key.
func (a *API) terms(ctx context.Context, t flow.Terms) (flow.Terms, error) {
	key, err := request.Key(headerOf(ctx))
	t.Actor, t.Way, t.Key = access.Of(ctx).Name, way(ctx), key
	return t, err
}

// way is how somebody came to us: the commands of register say so.
func way(ctx context.Context) flow.Way {
	if strings.HasPrefix(headerOf(ctx).Get("User-Agent"), "flower-register") {
		return flow.WayCLI
	}
	return flow.WayAPI
}

// maxPreviewed is how many flows of a bulk action a failure has: what counts there is how
// many tasks they are, and the plan.
const maxPreviewed = 100

// actError makes answers of what kept an action from being carried out. A preview is in the
// form that every other answer has.
func (a *API) actError(err error) error {
	if changed, ok := errors.AsType[*flow.PlanChangedError](err); ok {
		f := problem.Of(context.Background(), err, 0)
		changed.Effect.DryRun = true // nothing has changed
		f.Extra.Preview = newEffect(changed.Effect)
		if changed.Bulk != nil {
			preview := *changed.Bulk
			preview.DryRun, preview.Flows = true, preview.Flows[:min(len(preview.Flows), maxPreviewed)]
			f.Extra.Preview = newBulkEffect(preview)
		}
		return f
	}
	if refused, ok := errors.AsType[*flow.RefusedError](err); ok {
		f := problem.Of(context.Background(), err, 0)
		if f.Status == http.StatusConflict {
			refused.Effect.DryRun = true
			f.Extra.Preview = newEffect(refused.Effect)
		}
		return f
	}
	if invalid, ok := errors.AsType[*flow.InvalidError](err); ok {
		return problem.InvalidValue.Because("%s", invalid)
	}
	return err
}

func newEffect(e flow.Effect) Effect {
	j := Effect{
		DryRun: e.DryRun, Replayed: e.Replayed, Changed: e.Changed(), Tasks: make([]TaskChange, len(e.Tasks)), CanGo: orEmpty(e.CanGo),
		Follow: orEmpty(e.Follow), Kept: e.Kept, Refused: newRefusals(e.Refused), Plan: e.Plan,
	}
	for i, t := range e.Tasks {
		j.Tasks[i] = TaskChange{string(t.Flow), t.Seq, t.Title, t.From.String(), t.To.String(), t.Attempt}
	}
	return j
}

func newRefusals(refused []flow.Refusal) []Refusal {
	list := make([]Refusal, len(refused))
	for i, r := range refused {
		list[i] = Refusal{string(r.Flow), orNull(r.Seq), string(r.Code), r.Detail}
	}
	return list
}

// becomes says what an action makes of a task whose status it does not change.
var becomes = map[flow.ActionKind]string{
	flow.ActionHold: "running, held if it would wait again", flow.ActionResume: "running, held no more", flow.ActionCancel: "cancelled",
}

func (e Effect) text(v view) string {
	var b strings.Builder
	verb := "changed"
	if e.DryRun {
		verb = "would change"
	}
	fmt.Fprintf(&b, "%s %s: %s %s, %d stay as they are\n", e.action, e.flow, verb, number(e.Changed, "task"), e.Kept)
	t := table{columns: []string{"seq", "title", "from", "to"}, numbers: []int{0}}
	others := slices.ContainsFunc(e.Tasks, func(c TaskChange) bool { return c.TaskFlowID != e.flow })
	if others {
		t.columns = append(t.columns, "flow")
	}
	for _, c := range e.Tasks {
		if c.To == c.From {
			c.To = cmp.Or(becomes[flow.ActionKind(e.action)], c.To)
		}
		cells := []any{c.TaskExecSeq, c.Title, c.From, c.To}
		if others {
			cells = append(cells, c.TaskFlowID)
		}
		t.add(cells...)
	}
	if len(t.rows) > 0 {
		b.WriteString(t.text())
	}
	if len(e.CanGo) > 0 {
		b.WriteString("can go at once: " + list(e.CanGo) + "\n")
	}
	if e.DryRun && e.Changed > 0 {
		b.WriteString("do it: " + v.again(e.Plan) + "\n")
	}
	return b.String()
}

// number counts in words: "1 task", "2 tasks".
func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func (p TaskPath) seq() (int, error) {
	seq, err := strconv.ParseInt(p.TaskExecSeq, 10, 32)
	if err != nil || seq < 1 {
		return 0, problem.TaskNotFound.Because("a task is named by its number in the flow, from 1, and %q is none", problem.Cut(p.TaskExecSeq, 40))
	}
	return int(seq), nil
}
