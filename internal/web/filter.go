package web

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// The fields of a URL that choose flows. Their words are those of the HTTP API.
var filterNames = []string{
	"status", "q", "taskId", "registeredBy", "program", "reason", "fingerprint", "since", "until", "minDuration", "group", "taskSeq",
}

// reasons are what a task can be suspended for, as a filter has them.
var reasons = []flow.Reason{flow.ReasonFailed, flow.ReasonTimeout, flow.ReasonLost, flow.ReasonInvalid, flow.ReasonHeld, flow.ReasonCancelled}

// filterOf reads which flows a URL is about. What it cannot read it refuses: a list that
// shows more than was asked for would be acted upon.
func filterOf(q query) (flow.Filter, error) {
	f := flow.Filter{
		WorkflowID: flow.WorkflowID(q.get("taskId")), RegisteredBy: q.get("registeredBy"), Program: q.get("program"),
		Reason: flow.Reason(q.get("reason")), Fingerprint: q.get("fingerprint"), Text: strings.TrimSpace(q.get("q")),
	}
	for _, list := range q.values["status"] {
		for word := range strings.SplitSeq(list, ",") {
			if word != "" {
				f.Status = append(f.Status, word)
			}
		}
	}
	for _, word := range f.Status {
		if !slices.Contains(flow.FlowStatuses, word) {
			return f, badFilter("status", word, "one of "+strings.Join(flow.FlowStatuses, ", "))
		}
	}
	key, err := groupOf(q)
	if err != nil {
		return f, err
	}
	if key != nil { // its fields are the group's, and say nothing by themselves
		f.Group, f.WorkflowID, f.Program, f.Reason = key, "", "", ""
	} else if f.Reason != "" && !slices.Contains(reasons, f.Reason) {
		return f, badFilter("reason", string(f.Reason), "failed, timeout, lost, invalid, held or cancelled")
	}
	if f.Since, err = momentOf(q, "since"); err != nil {
		return f, err
	}
	if f.Until, err = momentOf(q, "until"); err != nil {
		return f, err
	}
	if text := q.get("minDuration"); text != "" {
		d, ok := request.Period(text)
		if !ok {
			return f, badFilter("minDuration", text, "a duration, as in 30s, 15m, 24h")
		}
		f.MinDuration = d
	}
	return f, nil
}

// groupOf reads a group of failures: group is its fingerprint, the others are what they say.
// nil: the URL names none.
func groupOf(q query) (*flow.FailureKey, error) {
	if q.get("group") == "" {
		return nil, nil
	}
	seq, err := strconv.Atoi(q.get("taskSeq"))
	if err != nil || seq > 1<<31-1 || seq < -1<<31 {
		return nil, badFilter("taskSeq", q.get("taskSeq"), "the number of a task's definition")
	}
	return &flow.FailureKey{
		WorkflowID: flow.WorkflowID(q.get("taskId")), TaskSeq: seq, Program: q.get("program"),
		Reason: flow.Reason(q.get("reason")), Fingerprint: q.get("group"),
	}, nil
}

// groupQuery is the way back.
func groupQuery(k flow.FailureKey) query {
	q := query{url.Values{"group": {k.Fingerprint}, "taskId": {string(k.WorkflowID)}, "taskSeq": {strconv.Itoa(k.TaskSeq)}}}
	return q.with("program", k.Program).with("reason", string(k.Reason))
}

func badFilter(name, value, want string) error {
	return problem.InvalidFilter.Because("the address has %s=%s, which is not %s", name, clip(value, 60), want)
}

// momentOf reads a point in time; none if the URL has none.
func momentOf(q query, name string) (flow.Moment, error) {
	text := q.get(name)
	if text == "" {
		return flow.Moment{}, nil
	}
	m, ok := request.Moment(text)
	if !ok {
		return m, badFilter(name, text, "so long before now (15m, 24h, 7d), a day (2026-11-23) or a moment (2026-11-23T03:12:01Z)")
	}
	return m, nil
}

// isFiltered reports whether a URL chooses flows at all.
func isFiltered(q query) bool {
	return slices.ContainsFunc(filterNames, func(name string) bool { return q.get(name) != "" })
}
