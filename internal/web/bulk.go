package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// maxPicked is on how many flows one bulk action of a list may be.
const maxPicked = 10_000

// typedFrom is how many tasks an action that cannot be taken back may change without the
// count being typed.
const typedFrom = 20

// picked is what a bulk action is for, as its form says.
type picked struct {
	action flow.BulkAction
	what   bulkTarget
}

// none reports whether there is no flow that it is for.
func (p picked) none() bool { return len(p.action.Flows) == 0 && !p.action.Filter.OfTasks() }

// errNoneLeft: of the flows that a preview showed, none matches any more.
var errNoneLeft = errors.New("no flow matches any more")

// bulk serves an action on many flows: GET is the preview, POST does it.
func (s *Site) bulk(kind flow.ActionKind) methods {
	return methods{
		http.MethodGet:  s.shown("bulk", s.previewAll(kind)),
		http.MethodPost: s.acted(s.actAll(kind)),
	}
}

// previewAll shows what an action on many flows would do. It changes nothing.
func (s *Site) previewAll(kind flow.ActionKind) shower {
	return func(r *http.Request, sh *shell) (any, error) {
		q := query{r.URL.Query()}
		p, err := s.pick(r.Context(), kind, q)
		if err != nil {
			return nil, err
		}
		v, err := s.planAll(r.Context(), p, q)
		if err != nil {
			return nil, err
		}
		v.Why = button{}.needs(sh.Who, access.Operator).Why
		sh.Title, sh.Active = v.Title, "Flows"
		return v, nil
	}
}

// pick reads which flows or tasks an action is for: a group of failures, all flows that
// match a filter, or those that were ticked.
//
// A filter is read anew by the POST that follows its preview. What it finds then must still
// come to the preview's plan, or nothing happens.
func (s *Site) pick(ctx context.Context, kind flow.ActionKind, q query) (picked, error) {
	p := picked{action: flow.BulkAction{Kind: kind}}
	if kind == flow.ActionRerun {
		p.action.Scope = flow.ScopeFailed
		if flow.Scope(q.get("scope")) == flow.ScopeAll {
			p.action.Scope = flow.ScopeAll
		}
	}
	key, err := groupOf(q)
	switch {
	case err != nil:
		return p, err
	case q.get("all") != "":
		err = s.pickAll(ctx, &p, q)
	case key != nil:
		err = s.pickGroup(ctx, &p, *key, q)
	default:
		for _, id := range q.values["flow"] {
			p.action.Flows = append(p.action.Flows, flow.ID(id))
		}
		slices.Sort(p.action.Flows)
		p.action.Flows = slices.Compact(p.action.Flows)
		p.what = bulkTarget{Words: plural(len(p.action.Flows), "chosen flow", "chosen flows")}
		if len(p.action.Flows) > maxPicked {
			err = flow.ErrTooMany
		}
	}
	for _, f := range p.action.Flows {
		p.what.Fields = append(p.what.Fields, field{"flow", string(f)})
	}
	if q.get("all") != "" {
		p.what.Fields = append(filterFields(q), field{"all", "1"})
	}
	return p, tooMuch(err)
}

func filterFields(q query) (fields []field) {
	for _, name := range filterNames {
		for _, value := range q.values[name] {
			fields = append(fields, field{name, value})
		}
	}
	return fields
}

// pickAll finds the flows of a filter, the way that the list does.
func (s *Site) pickAll(ctx context.Context, p *picked, q query) error {
	f, err := filterOf(q)
	if err != nil {
		return err
	}
	const step = 1000
	var after flow.Position
	for {
		page, err := s.store.Flows(ctx, f, after, step)
		if err != nil {
			return err
		}
		for _, one := range page.Flows {
			p.action.Flows = append(p.action.Flows, one.ID)
		}
		if len(p.action.Flows) > maxPicked {
			return problem.TooMany.Because("more than %s flows match; narrow the filter: by workflow, or by time", thousands(maxPicked))
		}
		if page.Next.IsZero() {
			p.what = bulkTarget{Words: plural(len(p.action.Flows), "flow that matches", "flows that match"), Filter: filterWords(q)}
			return nil
		}
		after = page.Next
	}
}

// pickGroup takes the tasks of a group of failures, those alone. With since, those that
// failed after a moment: of its first form, which counts from now, the preview makes one
// that stays.
func (s *Site) pickGroup(ctx context.Context, p *picked, key flow.FailureKey, q query) error {
	since, err := momentOf(q, "since")
	if err != nil {
		return err
	}
	groups, err := s.store.FailureGroups(ctx, flow.FailureFilter{
		WorkflowID: key.WorkflowID, Program: key.Program, Reason: key.Reason, Fingerprint: key.Fingerprint, Since: since, CountTo: flow.MaxCount, Limit: mostFlows,
	})
	if err != nil {
		return err
	}
	p.action.Filter = flow.BulkFilter{Group: &key, FailedSince: since.At}
	if since.Before > 0 {
		p.action.Filter.FailedSince = groups.AsOf.Add(-since.Before)
	}
	p.what = bulkTarget{Fields: groupQuery(key).Fields()}
	if at := p.action.Filter.FailedSince; !at.IsZero() {
		p.what.Fields = append(p.what.Fields, field{"since", at.UTC().Format(time.RFC3339Nano)})
	}
	i := slices.IndexFunc(groups.Groups, func(g flow.FailureGroup) bool { return g.Key() == key })
	if i >= 0 {
		g := newGroupRow(groups.Groups[i], q)
		p.what.Group = &g
	}
	return nil
}

// planAll finds out what an action on many flows would do now.
func (s *Site) planAll(ctx context.Context, p picked, q query) (bulkView, error) {
	a := p.action
	a.DryRun, a.Expect, a.Plan = true, nil, ""
	var effect flow.BulkEffect
	if !p.none() {
		var err error
		if effect, err = s.store.ActAll(ctx, a); err != nil {
			return bulkView{}, tooMuch(err)
		}
	}
	v := newBulkView(p, effect)
	v.Key = uuid.NewString()
	if back := q.get("back"); back != "" {
		v.Back = local(back)
	}
	v.Note = q.get("note")
	return v, nil
}

// tooMuch says what to do where an action is too much for once.
func tooMuch(err error) error {
	switch {
	case errors.Is(err, flow.ErrTooMany):
		return problem.TooMany.Because("%s", err)
	case errors.Is(err, flow.ErrTooSlow):
		f := problem.QueryTooSlow.Because("the database did not get through all of this in the time that it may take. " +
			"Choose fewer flows, or narrow the filter, by workflow or by time; or try again when it is less busy")
		f.Cause = err
		return f
	}
	return err
}

// actAll does it. Flows that are in the way are left alone, and told.
func (s *Site) actAll(kind flow.ActionKind) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		who := access.Of(r.Context())
		if err := who.Require(access.Operator); err != nil {
			return err
		}
		q := query{r.PostForm}
		p, err := s.pick(r.Context(), kind, q)
		if err != nil {
			return err
		}
		expect, err := strconv.Atoi(q.get("expect"))
		if err != nil || q.get("plan") == "" {
			return s.refusedAll(w, r, p, &flow.InvalidError{Subject: "This form", Problem: "has not what its preview promised: look at it again"})
		}
		p.action.Terms = flow.Terms{
			Actor: who.Name, Way: flow.WayUI, Note: strings.TrimSpace(q.get("note")), Key: q.get("key"), Plan: q.get("plan"), Expect: &expect,
		}
		if q.get("all") != "" { // sent again it finds other flows, and is the same request
			p.action.Asked = string(kind) + " " + q.without("back").values.Encode()
		}
		if err := p.checkForm(q.get("typed")); err != nil {
			return s.refusedAll(w, r, p, err)
		}
		effect, err := s.store.ActAll(r.Context(), p.action)
		problem.Answered(r.Context(), err)
		if err != nil {
			return s.refusedAll(w, r, p, err)
		}
		s.log.InfoContext(r.Context(), "bulk action", "action", kind, "changed", effect.Changed, "flows", len(effect.Flows), "refused", effect.RefusedCount,
			"replayed", effect.Replayed, "by", who.Name, "request", problem.RequestID(r.Context()))
		did := fmt.Sprintf("bulk.%s.%d.%d", kind, effect.Changed, len(effect.Flows))
		switch {
		case effect.Replayed:
			did = didBefore
		case effect.RefusedCount > 0:
			return s.partlyDone(w, r, p, effect)
		}
		to := withDid(local(cmp.Or(q.get("back"), "/flows")), did)
		http.Redirect(w, r, s.cfg.BasePath+to, http.StatusSeeOther)
		return nil
	}
}

// checkForm checks what else a form has, and that there still is something that it is for.
func (p picked) checkForm(typed string) error {
	a := p.action
	if p.none() {
		return errNoneLeft
	}
	if utf8.RuneCountInString(a.Note) > request.MaxNote {
		return &flow.InvalidError{Subject: "Note", Problem: fmt.Sprintf("may have %d characters", request.MaxNote)}
	}
	if expect := *a.Expect; needsTyping(a.Kind, expect) && strings.TrimSpace(typed) != strconv.Itoa(expect) {
		return &flow.InvalidError{Subject: "The count", Problem: fmt.Sprintf("type %d, since this cannot be taken back", expect)}
	}
	return nil
}

// needsTyping reports whether a person must type how many tasks an action changes.
func needsTyping(kind flow.ActionKind, tasks int) bool {
	return tasks > typedFrom && (kind == flow.ActionCancel || kind == flow.ActionSkip || kind == flow.ActionFinish)
}

// withDid adds to a path of this site what was done.
func withDid(path, did string) string {
	u, err := url.Parse(path)
	if err != nil {
		return path
	}
	u.RawQuery, u.Fragment = query{u.Query()}.with("did", did).values.Encode(), ""
	return u.String()
}

// refusedAll shows the form again, with why nothing has happened.
func (s *Site) refusedAll(w http.ResponseWriter, r *http.Request, p picked, err error) error {
	var (
		invalid *flow.InvalidError
		changed *flow.PlanChangedError
		guard   *flow.GuardError
		text    string
	)
	status := http.StatusConflict
	switch {
	case errors.As(err, &changed):
		text = "What is meant has changed since this was shown: nothing was done. This is what would happen now."
	case errors.As(err, &guard):
		text = "Nothing was done: " + guard.Error()
	case errors.Is(err, flow.ErrKeyReused):
		text = "This form was sent before, with something else in it. This is what would happen now."
	case errors.Is(err, errNoneLeft):
		text = "No flow matches any more: this was done already, be it by this form, or they have gone on by themselves."
	case errors.As(err, &invalid):
		status, text = http.StatusUnprocessableEntity, invalid.Error()
	default:
		return tooMuch(err)
	}
	v, err := s.planAll(r.Context(), p, query{r.PostForm})
	if err != nil {
		return err
	}
	v.Problem = text
	sh := s.newShell(r)
	sh.Title, sh.Active = v.Title, "Flows"
	s.send(w, r, s.render("bulk", status, view{sh, v}))
	return nil
}

// partlyDone tells which flows were left alone, and why. 207 makes a dialog show it.
func (s *Site) partlyDone(w http.ResponseWriter, r *http.Request, p picked, e flow.BulkEffect) error {
	v := newBulkDone(p, e, local(cmp.Or(r.PostForm.Get("back"), "/flows")))
	sh := s.newShell(r)
	sh.Title, sh.Active = v.Title, "Flows"
	s.send(w, r, s.render("bulkdone", http.StatusMultiStatus, view{sh, v}))
	return nil
}
