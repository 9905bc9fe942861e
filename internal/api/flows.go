package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

func (a *API) addFlows() {
	add(a, operation{
		id: "list-flows", method: http.MethodGet, path: "/flows", tag: tagFlows, need: access.Reader, formats: asLists,
		summary: "List flows, the one registered last first",
		text: "All filters must fit. `failed` also finds flows that still run with a task that failed. A page may have fewer flows " +
			"than `limit`, even none, where few match: as long as there is a `nextCursor`, the list goes on.",
	}, a.listFlows)
	add(a, operation{
		id: "get-flow", method: http.MethodGet, path: "/flows/{taskFlowId}", tag: tagFlows, need: access.Reader, formats: asText,
		summary: "A flow, with its tasks",
		text: "The beginning of its id will do, from 6 characters on. With `wait` the answer comes when nothing of the flow runs " +
			"or can go any more, or after that time.",
	}, a.getFlow)
	add(a, operation{
		id: "register-flow", method: http.MethodPost, path: "/flows", tag: tagFlows, need: access.Registrar,
		status: http.StatusCreated, takesKey: true,
		summary: "Register a flow", text: "The same as POST /register, with other answers.",
	}, a.registerFlow)
}

// FlowFilter has the filters of flows. Its names are those of the query.
type FlowFilter struct {
	Status       []string `query:"status" enum:"running,failed,held,cancelled,queued,finished" doc:"One or several, with commas between them."`
	TaskID       string   `query:"taskId" maxLength:"256" doc:"The workflow."`
	Program      string   `query:"program" maxLength:"256" doc:"Of one of its tasks."`
	Reason       string   `query:"reason" enum:"failed,timeout,lost,invalid,cancelled,held" doc:"Why one of its tasks is suspended."`
	Fingerprint  string   `query:"fingerprint" maxLength:"64" doc:"Of the error of one of its failed tasks, as in GET /failures."`
	RegisteredBy string   `query:"registeredBy" maxLength:"200" doc:"Who registered it."`
	Q            string   `query:"q" maxLength:"200" doc:"The beginning of its id, or a part of the workflow's, or of the name, the program or the error of a suspended task."`
	Since        string   `query:"since" maxLength:"40" doc:"Registered since: RFC 3339, or 15m, 24h, 7d ago."`
	Until        string   `query:"until" maxLength:"40" doc:"Registered before that."`
	MinDuration  string   `query:"minDuration" maxLength:"40" doc:"Took at least so long: 90s, 15m, 2h. Goes with since."`
}

func (f FlowFilter) filter() (flow.Filter, error) {
	since, err := moment("since", f.Since)
	if err != nil {
		return flow.Filter{}, err
	}
	until, err := moment("until", f.Until)
	if err != nil {
		return flow.Filter{}, err
	}
	least, err := period("minDuration", f.MinDuration)
	if err != nil {
		return flow.Filter{}, err
	}
	if least > 0 && since.IsZero() {
		return flow.Filter{}, problem.InvalidFilter.Because("minDuration goes with since: how far back to look")
	}
	slices.Sort(f.Status)
	return flow.Filter{
		Status: slices.Compact(f.Status), WorkflowID: flow.WorkflowID(f.TaskID), Program: f.Program, Reason: flow.Reason(f.Reason),
		Fingerprint: f.Fingerprint, RegisteredBy: f.RegisteredBy, Text: f.Q, Since: since, Until: until, MinDuration: least,
	}, nil
}

type listFlowsInput struct {
	FlowFilter
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"At most so many."`
	Cursor string `query:"cursor" maxLength:"2000" doc:"The nextCursor of the page before."`
	Count  bool   `query:"count" doc:"1: count them, too, up to a thousand."`
}

// FlowList is a part of the list of flows.
type FlowList struct {
	Items      []Flow  `json:"items" nullable:"false"`
	NextCursor *string `json:"nextCursor" doc:"Where the list goes on; null is the end."`
	Count      *int    `json:"count" doc:"How many there are, if that was asked for."`
	Exact      *bool   `json:"exact" doc:"False: there are at least so many."`
}

func (a *API) listFlows(ctx context.Context, in *listFlowsInput) (FlowList, error) {
	f, err := in.filter()
	if err != nil {
		return FlowList{}, err
	}
	after, err := parseCursor(in.Cursor)
	if err != nil {
		return FlowList{}, err
	}
	page, err := a.store.Flows(ctx, f, after, in.Limit)
	if err != nil {
		return FlowList{}, err
	}
	list := FlowList{Items: make([]Flow, len(page.Flows))}
	for i, s := range page.Flows {
		list.Items[i] = a.flow(s)
	}
	if !page.Next.IsZero() {
		next := formatCursor(page.Next)
		list.NextCursor = &next
	}
	if in.Count {
		n, err := a.store.Count(ctx, f)
		if err != nil {
			return FlowList{}, err
		}
		exact := !n.More
		list.Count, list.Exact = &n.N, &exact
	}
	return list, nil
}

// header says where the list goes on, for programs that go by headers.
func (l FlowList) header(h http.Header, r *http.Request) { linkNext(h, r, "cursor", l.NextCursor) }

// linkNext sets the Link of a next page. The request has lost the base path on its way here.
func linkNext(h http.Header, r *http.Request, name string, next *string) {
	if next == nil {
		return
	}
	v, query := viewOf(r.Context()), r.URL.Query()
	query.Set(name, *next)
	if v.format != "" { // the router has not seen it
		query.Set("format", v.format)
	}
	if v.ascii {
		query.Set("ascii", "1")
	}
	h.Set("Link", "<"+v.base+r.URL.EscapedPath()+"?"+query.Encode()+`>; rel="next"`)
}

type getFlowInput struct {
	TaskFlowID string   `path:"taskFlowId" doc:"The flow's id, or its beginning, from 6 characters on."`
	Include    []string `query:"include" enum:"tasks,events" doc:"What comes with it; without it the tasks."`
	Wait       string   `query:"wait" maxLength:"20" doc:"30s, at most 5m."`
}

func (a *API) getFlow(ctx context.Context, in *getFlowInput) (FlowDetail, error) {
	id, err := a.flowID(ctx, in.TaskFlowID)
	if err != nil {
		return FlowDetail{}, err
	}
	patience, err := period("wait", in.Wait)
	if err != nil {
		return FlowDetail{}, err
	}
	if err := a.awaitEnd(ctx, id, min(patience, maxWait)); err != nil {
		return FlowDetail{}, err
	}
	s, err := a.store.Flow(ctx, id)
	if err != nil {
		return FlowDetail{}, unknownFlow(id, err)
	}
	d := a.detail(s)
	if len(in.Include) > 0 && !slices.Contains(in.Include, "tasks") {
		d.Tasks = nil
	}
	if slices.Contains(in.Include, "events") {
		page, err := a.store.Events(ctx, flow.EventFilter{Flow: id, Limit: 100})
		if err != nil {
			return FlowDetail{}, err
		}
		d.Events = newEvents(page.Events)
	}
	return d, nil
}

func (d FlowDetail) text(v view) string { return flowText(d.state, v) }

// minPrefix is how much of a flow's id must be given at least.
const (
	minPrefix     = 6
	maxCandidates = 10
)

// flowID finds the flow that a path names, by its whole id or by the beginning of one.
func (a *API) flowID(ctx context.Context, escaped string) (flow.ID, error) {
	id, err := request.ID(escaped)
	if err != nil {
		return "", err
	}
	if utf8.RuneCountInString(id) > request.MaxFlowID {
		return "", unknownFlow(flow.ID(id), flow.ErrNotFound)
	}
	if _, err := a.store.FlowStatus(ctx, flow.ID(id)); err == nil || !errors.Is(err, flow.ErrNotFound) {
		return flow.ID(id), err
	}
	if utf8.RuneCountInString(id) < minPrefix {
		return "", problem.FlowNotFound.Because("there is no flow %q, and %d characters of an id are needed to find the whole one", id, minPrefix)
	}
	ids, err := a.store.FindFlow(ctx, id, maxCandidates+1)
	switch {
	case err != nil:
		return "", err
	case len(ids) == 1:
		return ids[0], nil
	case len(ids) == 0:
		return "", unknownFlow(flow.ID(id), flow.ErrNotFound)
	}
	f := problem.FlowNotFound.Because("the ids of several flows begin with %q: say more of it", request.ShortID(id))
	for _, c := range ids[:min(len(ids), maxCandidates)] {
		f.Extra.Candidates = append(f.Extra.Candidates, string(c))
	}
	return "", f
}

// unknownFlow says which flow does not exist; other errors say what was read.
func unknownFlow(id flow.ID, err error) error {
	if errors.Is(err, flow.ErrNotFound) {
		return problem.FlowNotFound.Because("there is no flow %q", request.ShortID(string(id)))
	}
	return fmt.Errorf("read flow %q: %w", id, err)
}

// registerBody is what registers a flow.
type registerBody struct {
	TaskID       string `json:"taskId" maxLength:"256" doc:"The workflow."`
	TaskFlowID   string `json:"taskFlowId,omitempty" maxLength:"256" doc:"Your own id for the flow; without it one is made."`
	Parameters   object `json:"parameters,omitempty" doc:"An object, merged over the parameters of every task."`
	Priority     *int   `json:"priority,omitempty" minimum:"-20" maximum:"19" doc:"Of all its tasks; smaller is more urgent."`
	Note         string `json:"note,omitempty" maxLength:"2000" doc:"Why."`
	RegisteredBy string `json:"registeredBy,omitempty" maxLength:"200" doc:"For whom."`
}

type registerInput struct{ Body registerBody }

// Registered is a flow that exists now.
type Registered struct {
	TaskFlowID   string     `json:"taskFlowId"`
	TaskID       string     `json:"taskId"`
	RegisteredTs *timestamp `json:"registeredTs"`
	Replayed     bool       `json:"replayed" doc:"An earlier request with the same Idempotency-Key has made it."`
	URL          string     `json:"url"`
}

func (r Registered) header(h http.Header, q *http.Request) {
	h.Set("Location", viewOf(q.Context()).base+flowURL(flow.ID(r.TaskFlowID)))
	if r.Replayed {
		h.Set("Idempotency-Replayed", "true")
	}
}

func (a *API) registerFlow(ctx context.Context, in *registerInput) (Registered, error) {
	start := time.Now()
	b := in.Body
	asked, err := request.Registration{
		TaskID: b.TaskID, TaskFlowID: b.TaskFlowID, Parameters: []byte(b.Parameters), Priority: b.Priority, Note: b.Note, RegisteredBy: b.RegisteredBy,
	}.Flow(ctx, headerOf(ctx))
	if err != nil {
		return Registered{}, err
	}
	f, err := a.store.Register(ctx, asked)
	problem.Answered(ctx, err)
	switch {
	case errors.Is(err, flow.ErrNotFound):
		return Registered{}, a.noWorkflow(ctx, b.TaskID)
	case errors.Is(err, flow.ErrFlowExists):
		return Registered{}, a.flowExists(ctx, asked.FlowID, err)
	case err != nil:
		return Registered{}, fmt.Errorf("register workflow %q: %w", b.TaskID, err)
	}
	a.log.InfoContext(ctx, "flow registered", "flow", f.ID, "task", f.WorkflowID, "replayed", f.Replayed, "by", asked.RegisteredBy,
		"took", time.Since(start).Round(time.Microsecond), "request", problem.RequestID(ctx))
	return Registered{string(f.ID), string(f.WorkflowID), stamp(f.RegisteredAt), f.Replayed, a.pagePath(f.ID)}, nil
}

// flowExists answers with the flow that is there already.
func (a *API) flowExists(ctx context.Context, id flow.ID, err error) error {
	s, readErr := a.store.Flow(ctx, id)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	f := problem.FlowExists.Because("a flow %q exists already: it is in this answer; choose another taskFlowId, or none", request.ShortID(string(id)))
	f.Extra.Flow = a.detail(s).Flow
	return f
}

// aMoment says what a point in time looks like.
const aMoment = "a time as in 2026-11-23T03:12:00Z, or how long ago, as in 15m, 24h, 7d"

// moment reads a point in time; none if there is no text.
func moment(name, text string) (flow.Moment, error) {
	if text == "" {
		return flow.Moment{}, nil
	}
	m, ok := request.Moment(text)
	if !ok {
		return m, problem.InvalidFilter.Because("%s: must be %s", name, aMoment)
	}
	return m, nil
}

// period reads a length of time likewise.
func period(name, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, ok := request.Period(text)
	if !ok {
		return 0, problem.InvalidFilter.Because("%s: must be a length of time as in 90s, 15m, 24h, 7d", name)
	}
	return d, nil
}
