package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// fakeLists are the answers of a fakeStore about many flows.
type fakeLists struct {
	page      func(flow.Filter, flow.Position, int) (flow.Page, error)
	counts    flow.FlowCounts
	count     func() (flow.FlowCounts, error)
	actAll    func(flow.BulkAction) (flow.BulkEffect, error)
	stats     flow.Stats
	running   []flow.RunningTask
	queue     []flow.QueuedTask
	groups    flow.FailureGroups
	workflows []flow.WorkflowState
	wstats    flow.WorkflowStats
	cells     map[flow.ID][]flow.TaskState
	versions  []flow.DefinitionVersion
	storage   flow.Storage
}

func (f *fakeStore) Storage(context.Context) (flow.Storage, error) { return f.lists.storage, nil }

func (f *fakeStore) Flows(_ context.Context, filter flow.Filter, after flow.Position, limit int) (flow.Page, error) {
	if f.lists.page != nil {
		return f.lists.page(filter, after, limit)
	}
	return flow.Page{Flows: f.flows}, nil
}

func (f *fakeStore) FlowCounts(context.Context, flow.Filter) (flow.FlowCounts, error) {
	if f.lists.count != nil {
		return f.lists.count()
	}
	return f.lists.counts, nil
}

func (f *fakeStore) ActAll(_ context.Context, b flow.BulkAction) (flow.BulkEffect, error) {
	if f.lists.actAll == nil {
		return flow.BulkEffect{}, nil
	}
	return f.lists.actAll(b)
}

func (f *fakeStore) Throughput(context.Context, time.Duration, time.Duration) (flow.Stats, error) {
	return f.lists.stats, nil
}

func (f *fakeStore) Running(context.Context, int) ([]flow.RunningTask, error) {
	return f.lists.running, nil
}

func (f *fakeStore) Queue(context.Context, flow.WorkflowID, int) ([]flow.QueuedTask, time.Time, error) {
	return f.lists.queue, time.Time{}, nil
}

func (f *fakeStore) FailureGroups(context.Context, flow.FailureFilter) (flow.FailureGroups, error) {
	return f.lists.groups, nil
}

func (f *fakeStore) Workflows(context.Context, flow.WorkflowID, string, int, int) ([]flow.WorkflowState, bool, error) {
	return f.lists.workflows, len(f.lists.workflows) > 0, nil
}

func (f *fakeStore) WorkflowIDs(context.Context, int) (ids []flow.WorkflowID, err error) {
	for _, w := range f.lists.workflows {
		ids = append(ids, w.ID)
	}
	return ids, nil
}

func (f *fakeStore) WorkflowStats(context.Context, flow.WorkflowID, time.Duration) (flow.WorkflowStats, error) {
	return f.lists.wstats, nil
}

func (f *fakeStore) Cells(context.Context, []flow.ID, int) (map[flow.ID][]flow.TaskState, error) {
	return f.lists.cells, nil
}

func (f *fakeStore) DefinitionVersions(_ context.Context, _ flow.WorkflowID, before, limit int) (some []flow.DefinitionVersion, err error) {
	for _, v := range f.lists.versions {
		if (before == 0 || v.Version < before) && len(some) < limit {
			some = append(some, v)
		}
	}
	return some, nil
}

// fullWorkflow is a definition in which every text is what is given.
func fullWorkflow(text string) flow.WorkflowState {
	id := flow.WorkflowID(text)
	return flow.WorkflowState{
		Workflow: flow.Workflow{ID: id, Version: 4, Tasks: []flow.TaskDefinition{
			{
				Seq: 1, Program: text, Priority: -5, Parameters: object1(text), DependsOn: []int{}, Description: text + "\n" + text, MaxAttempts: 3,
				RetryDelay: time.Second, Timeout: time.Minute, OnLost: flow.OnLost(text), RunIf: text,
			},
			{Seq: 2, Program: text},
			{Seq: 7, Program: text, DependsOn: []int{1, 2}},
		}},
		Description: text, MaxRunningFlows: 1, MaxRunningTasks: 3,
	}
}

// fullLists have something of everything, with every text as given.
func fullLists(text string) fakeLists {
	s := sample(text)
	at := s.AsOf
	some := flow.Count{N: 7, More: true}
	var flows []flow.Summary
	for i, status := range append([]string{text}, flow.FlowStatuses...) {
		f := flow.Summary{
			Flow: flow.Flow{ID: flow.ID(fmt.Sprint(text, i)), WorkflowID: flow.WorkflowID(text), RegisteredAt: at}, Status: status,
			Counts: flow.Counts{Waiting: 1, Running: 2, Suspended: 3, Finished: 4, Ignored: 5}, RegisteredBy: text, Note: text,
			StartedAt: at, Took: time.Minute, Position: flow.Position{At: at, Flow: flow.ID(text)},
		}
		if i%2 == 0 {
			f.EndedAt = at.Add(time.Minute)
			f.Failure = &flow.Failure{Seq: 3, Title: text, Reason: flow.ReasonFailed, Error: text}
		}
		flows = append(flows, f)
	}
	group := flow.FailureGroup{
		Tasks: some, Flows: some, WorkflowID: flow.WorkflowID(text), TaskSeq: 3, Title: text, Program: text, Reason: flow.ReasonTimeout, Error: text,
		Fingerprint: "9c1f" + text, FirstAt: at, LastAt: at, Latest: flow.TaskKey{Flow: s.ID, Seq: 3}, Recover: text, Spread: []int{1, 0, 2},
	}
	version := func(n int, d *flow.Definition) flow.DefinitionVersion {
		return flow.DefinitionVersion{Version: n, Definition: d, Digest: text, AppliedAt: at, AppliedBy: text, Application: text, Note: text}
	}
	state := fullWorkflow(text)
	state.Last = flows
	definition := flow.Definition{Workflow: state.Workflow, Description: text, MaxRunningFlows: 1, MaxRunningTasks: 3}
	other := definition
	other.Tasks = slices.Clone(definition.Tasks[1:])
	other.Tasks[0].Program = "other"
	return fakeLists{
		page: func(_ flow.Filter, _ flow.Position, limit int) (flow.Page, error) {
			page := flow.Page{Flows: flows[:min(limit, len(flows))], AsOf: at}
			if limit < 1000 {
				page.Next = flow.Position{At: at, Flow: s.ID}
			}
			return page, nil
		},
		counts: flow.FlowCounts{ByStatus: map[string]flow.Count{"failed": some, "running": {N: 1}}, All: some},
		actAll: func(b flow.BulkAction) (flow.BulkEffect, error) {
			return flow.BulkEffect{
				DryRun: b.DryRun, Changed: 34, CanGo: 2, Flows: []flow.FlowChange{{Flow: s.ID, Changed: 34}}, Plan: text,
				Refused: []flow.Refusal{{Flow: s.ID, Seq: 2, Title: text, Code: flow.RefusedTaskRunning, Detail: text}}, RefusedCount: 3,
			}, nil
		},
		groups:    flow.FailureGroups{Groups: []flow.FailureGroup{group}, More: true, AsOf: at},
		workflows: []flow.WorkflowState{state, {Workflow: flow.Workflow{ID: state.ID + "2"}, Problems: []string{text, text}}},
		wstats: flow.WorkflowStats{
			WorkflowID: state.ID, Since: at, AsOf: at, Flows: some, ByStatus: map[string]int{"finished": 3, "failed": 1},
			Took:  flow.Quantiles{P50: time.Second, P95: time.Minute, Max: time.Hour},
			Tasks: []flow.TaskStats{{TaskSeq: 1, Title: text, Program: text, Runs: 7, Failed: 2, Attempts: 3, Took: flow.Quantiles{P50: 1, P95: 2, Max: 3}}, {TaskSeq: 2, Title: text}},
		},
		cells:    map[flow.ID][]flow.TaskState{flows[0].ID: s.Tasks, flows[1].ID: s.Tasks[:3]},
		versions: []flow.DefinitionVersion{version(4, &definition), version(3, nil), version(2, &other), version(1, &definition)},
		storage:  flow.Storage{AsOf: at, Postgres: text, Schema: 22, Size: 1 << 40, Tables: []flow.TableSize{{Name: text, Rows: 1234567, Bytes: 1 << 30, Means: text}, {Name: "x", Rows: -1}}},
		stats: flow.Stats{
			AsOf: at, Flows: flow.FlowCounts{All: some}, Workers: 5, Busy: 3, Running: 9, Queue: some, Bucket: 5 * time.Minute,
			Buckets: []flow.Bucket{{At: at.Add(-10 * time.Minute), Finished: 2, Failed: 1}, {At: at.Add(-5 * time.Minute)}, {At: at, Finished: 412}},
		},
		running: []flow.RunningTask{
			{
				TaskKey: flow.TaskKey{Flow: s.ID, Seq: 3}, WorkflowID: s.WorkflowID, Title: text, Program: text, WatcherID: text, Watcher: text,
				StartedAt: at, RunningFor: time.Minute, Odd: text, UsualP50: time.Second, UsualP95: time.Minute,
			},
			{TaskKey: flow.TaskKey{Flow: s.ID, Seq: 4}, Title: text},
		},
		queue: []flow.QueuedTask{
			{TaskKey: flow.TaskKey{Flow: s.ID, Seq: 5}, Position: 1, Priority: -5, WorkflowID: s.WorkflowID, Title: text, ReadySince: at, WaitReason: "no_watcher", Why: text},
		},
	}
}

// listPages are requests for the pages that are about many flows.
func listPages(id string) map[string]*http.Request {
	group := url.Values{"group": {"9c1f" + id}, "taskId": {id}, "taskSeq": {"3"}, "program": {id}, "reason": {"timeout"}, "back": {id}}
	filter := url.Values{"taskId": {id}, "q": {id}, "registeredBy": {id}, "program": {id}, "fingerprint": {id}, "since": {"24h"}, "limit": {id}}
	pages := map[string]*http.Request{}
	w := "/workflows/" + url.PathEscape(id)
	row := newGroupRow(fullLists(id).groups.Groups[0], query{})
	for _, path := range []string{
		"/", "/?window=7d", "/?window=" + url.QueryEscape(id),
		"/workflows", "/workflows?q=" + url.QueryEscape(id), "/workflows?after=" + url.QueryEscape(id),
		w, w + "?window=24h&flows=25&task=2", w + "?version=4&task=7", w + "?version=3", w + "?version=99",
		"/watchers", "/events", "/events?kind=rerun&before=9&actor=" + url.QueryEscape(id) + "&taskFlowId=" + url.QueryEscape(id),
		"/flows", "/flows?status=failed", "/flows?" + filter.Encode(), "/flows?" + group.Encode(), "/flows?after=" + cursorOf(flow.Position{At: time.Unix(1, 0), Flow: "f"}) + "&newer=-.x",
		"/flows?at=" + cursorOf(flow.Position{At: time.Unix(1, 0), Flow: flow.ID(id)}), "/flows?did=bulk.rerun.3.2",
		"/failures", "/failures?open=" + row.ID, "/failures?since=24h&taskId=" + url.QueryEscape(id),
		"/bulk/rerun?flow=" + url.QueryEscape(id), "/bulk/skip?" + group.Encode(), "/bulk/finish?" + group.Encode(), "/bulk/cancel?all=1&" + filter.Encode(),
		"/bulk/hold?flow=a&flow=b", "/bulk/resume?flow=a",
	} {
		pages["GET "+path] = sent(http.MethodGet, path, nil)
	}
	form := url.Values{"flow": {id}, "note": {id}, "back": {id}, "expect": {"34"}, "plan": {id}, "key": {id}}
	pages["POST bulk, partly done"] = sent(http.MethodPost, "/bulk/rerun", form)
	pages["POST bulk, refused"] = sent(http.MethodPost, "/bulk/cancel", form)
	return pages
}
