package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// action serves an action that is shown first: GET is the preview, POST of the same URL
// does it.
func (s *Site) action(kind flow.ActionKind) methods {
	return methods{
		http.MethodGet:  s.shown("act", s.preview(kind)),
		http.MethodPost: s.acted(s.act(kind)),
	}
}

// actionAtOnce serves an action that has no preview, since another one takes it back. Where
// it was refused, the page of why has its address: whoever asks for that sees the flow.
func (s *Site) actionAtOnce(kind flow.ActionKind) methods {
	toFlow := func(r *http.Request, _ *shell) (any, error) {
		id, err := pathID(r, "task_flow_id")
		if err != nil {
			return nil, err
		}
		return nil, &elsewhere{flowPath(flow.ID(id))}
	}
	return methods{
		http.MethodGet:  s.shown("flow", toFlow),
		http.MethodPost: s.acted(s.act(kind)),
	}
}

// preview shows what an action would do. It changes nothing.
func (s *Site) preview(kind flow.ActionKind) shower {
	return func(r *http.Request, sh *shell) (any, error) {
		a, err := actionOf(r, kind, r.URL.Query())
		if err != nil {
			return nil, err
		}
		v, err := s.plan(r.Context(), a)
		if err != nil {
			return nil, err
		}
		v.Why = button{}.needs(sh.Who, access.Operator).Why
		v.Back = r.URL.Query().Get("back")
		sh.Title, sh.Active = v.Title, "Flows"
		return v, nil
	}
}

// plan finds out what an action would do now.
func (s *Site) plan(ctx context.Context, a flow.Action) (actView, error) {
	state, err := s.store.Flow(ctx, a.Flow)
	if errors.Is(err, flow.ErrNotFound) {
		return actView{}, &unknownFlow{id: a.Flow}
	}
	if err != nil {
		return actView{}, err
	}
	a = withTask(a, state)
	a.DryRun, a.Expect, a.Plan = true, nil, ""
	effect, err := s.store.Act(ctx, a)
	var refused *flow.RefusedError
	if err != nil && !errors.As(err, &refused) {
		return actView{}, err
	}
	if errors.Is(err, flow.ErrNotFound) {
		return actView{}, problem.TaskNotFound.Because("%s", refused)
	}
	if refused != nil {
		effect = refused.Effect
		effect.Refused = refused.Refused
	}
	v := newActView(a, state, effect)
	v.Key = uuid.NewString()
	return v, nil
}

// withTask names a task for a scope that needs one: the one that failed first, or the
// first one.
func withTask(a flow.Action, s flow.State) flow.Action {
	if a.Kind == flow.ActionRerun && a.Seq == 0 && (a.Scope == flow.ScopeFrom || a.Scope == flow.ScopeOnly) {
		if t, ok := selected(s, query{}); ok {
			a.Seq = t.Seq
		} else if len(s.Tasks) > 0 {
			a.Seq = s.Tasks[0].Seq
		}
	}
	return a
}

// act does it. The form has what its preview promised: if that no longer holds, nothing
// happens, and the form comes back with what would happen now.
func (s *Site) act(kind flow.ActionKind) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		who := access.Of(r.Context())
		if err := who.Require(access.Operator); err != nil {
			return err
		}
		a, err := actionOf(r, kind, r.PostForm)
		if err != nil {
			return s.refused(w, r, a, err)
		}
		a.Terms = flow.Terms{
			Actor: who.Name, Way: flow.WayUI, Note: strings.TrimSpace(r.PostForm.Get("note")),
			Key: r.PostForm.Get("key"), Plan: r.PostForm.Get("plan"),
		}
		if expect, err := strconv.Atoi(r.PostForm.Get("expect")); err == nil {
			a.Expect = &expect
		}
		effect, err := s.store.Act(r.Context(), a)
		problem.Answered(r.Context(), err)
		if err != nil {
			return s.refused(w, r, a, err)
		}
		s.log.InfoContext(r.Context(), "action", "action", kind, "flow", a.Flow, "seq", a.Seq, "changed", effect.Changed(), "by", who.Name,
			"request", problem.RequestID(r.Context()))
		did := fmt.Sprintf("%s.%d.%s", kind, effect.Changed(), a.Flow)
		if effect.Replayed {
			did = didBefore
		}
		http.Redirect(w, r, s.cfg.BasePath+backTo(r.PostForm.Get("back"), a.Flow, did), http.StatusSeeOther)
		return nil
	}
}

// backTo returns where an action's form came from, or the flow's page, with what was done.
func backTo(back string, id flow.ID, did string) string {
	if back == "" {
		return withDid(flowPath(id), did)
	}
	return withDid(local(back), did)
}

// refused shows the form again, with why nothing has happened. Where only the plan has
// changed, confirming it again does what is shown now.
func (s *Site) refused(w http.ResponseWriter, r *http.Request, a flow.Action, err error) error {
	status, text := refusedForm(r, err)
	var changed *flow.PlanChangedError
	switch {
	case text == "":
		return err
	case errors.As(err, &changed):
		text = "The tasks have changed since this was shown: nothing was done. This is what would happen now."
	case errors.Is(err, flow.ErrKeyReused):
		status, text = http.StatusConflict, "This form was sent before, with something else in it. This is what would happen now."
	default:
		text = "Nothing was done. " + text
	}
	v, err := s.plan(r.Context(), a)
	if err != nil {
		return err
	}
	v.Problem, v.Back, v.Note = text, r.PostForm.Get("back"), r.PostForm.Get("note")
	v.Parameters, v.Output = r.PostForm.Get("parameters"), r.PostForm.Get("output")
	sh := s.newShell(r)
	sh.Title, sh.Active = v.Title, "Flows"
	s.send(w, r, s.render("act", status, view{sh, v}))
	return nil
}

// actionOf reads an action from a request's path and from values, of its query or form. Where
// a field is wrong, what the action is about is returned all the same.
func actionOf(r *http.Request, kind flow.ActionKind, values url.Values) (flow.Action, error) {
	id, err := pathID(r, "task_flow_id")
	if err != nil {
		return flow.Action{}, err
	}
	a := flow.Action{Kind: kind, Flow: flow.ID(id)}
	seq := mux.Vars(r)["task_exec_seq"]
	if kind == flow.ActionRerun {
		seq = values.Get("from")
		a.Scope = scopeOf(values.Get("scope"))
		if a.Scope == flow.ScopeFailed || a.Scope == flow.ScopeAll {
			seq = ""
		}
	}
	if seq != "" {
		if a.Seq, err = seqOf(seq); err != nil {
			return a, err
		}
	}
	if a.Parameters, err = object("Parameters", values.Get("parameters")); err != nil {
		return a, err
	}
	if a.Output, err = object("Output", values.Get("output")); err != nil {
		return a, err
	}
	if utf8.RuneCountInString(values.Get("note")) > request.MaxNote {
		return a, problem.InvalidValue.Because("the note may have %d characters", request.MaxNote)
	}
	return a, nil
}

func scopeOf(s string) flow.Scope {
	switch scope := flow.Scope(s); scope {
	case flow.ScopeFrom, flow.ScopeOnly, flow.ScopeAll:
		return scope
	}
	return flow.ScopeFailed
}
