package web

import (
	"errors"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/request"
)

// fields returns the hidden fields of the form that acts.
func fields(page string) url.Values {
	form := url.Values{}
	_, page, _ = strings.Cut(page, `<form method="post" action="/flows/`)
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(page, -1) {
		form.Set(m[1], m[2])
	}
	return form
}

// What the preview shows is what the form asks for, and nothing is done before.
func TestPreviewAndAct(t *testing.T) {
	t.Parallel()
	var asked []flow.Action
	store := fullStore("plain")
	store.act = func(a flow.Action) (flow.Effect, error) {
		asked = append(asked, a)
		return flow.Effect{Tasks: []flow.TaskChange{{Flow: "plain", Seq: 3}, {Flow: "plain", Seq: 4}}, Plan: "b5a1"}, nil
	}
	s := newSite(t, Config{BasePath: "/flower"}, store)
	for path, want := range map[string]flow.Action{
		"/flows/plain/rerun":                     {Kind: flow.ActionRerun, Scope: flow.ScopeFailed},
		"/flows/plain/rerun?scope=from&from=4":   {Kind: flow.ActionRerun, Scope: flow.ScopeFrom, Seq: 4},
		"/flows/plain/rerun?scope=only&from=4":   {Kind: flow.ActionRerun, Scope: flow.ScopeOnly, Seq: 4},
		"/flows/plain/rerun?scope=only":          {Kind: flow.ActionRerun, Scope: flow.ScopeOnly, Seq: 3},
		"/flows/plain/rerun?scope=all&from=4":    {Kind: flow.ActionRerun, Scope: flow.ScopeAll},
		"/flows/plain/rerun?scope=nonsense":      {Kind: flow.ActionRerun, Scope: flow.ScopeFailed},
		"/flows/plain/cancel":                    {Kind: flow.ActionCancel},
		"/flows/plain/tasks/5/skip":              {Kind: flow.ActionSkip, Seq: 5},
		"/flows/plain/tasks/5/approve":           {Kind: flow.ActionApprove, Seq: 5},
		"/flows/plain/tasks/5/cancel":            {Kind: flow.ActionCancel, Seq: 5},
		"/flows/plain/tasks/5/finish?from=7&x=y": {Kind: flow.ActionFinish, Seq: 5},
	} {
		asked = nil
		want.Flow = "plain"
		page := get(s, path).Body.String()
		preview := want
		preview.DryRun = true
		require.Equal(t, []flow.Action{preview}, asked, path)

		form := fields(strings.ReplaceAll(page, `action="/flower/`, `action="/`))
		require.Equal(t, "b5a1", form.Get("plan"), path)
		require.Equal(t, "2", form.Get("expect"), path)
		require.Len(t, form.Get("key"), 36, path)
		form.Set("note", " the API is back ")
		path, _, _ = strings.Cut(path, "?")
		w := ask(s, access.Operator, http.MethodPost, path, form)
		require.Equal(t, http.StatusSeeOther, w.Code, path)
		require.Equal(t, "/flower/flows/plain?did="+string(want.Kind)+".2.plain", w.Header().Get("Location"))
		expect := 2
		want.Terms = flow.Terms{Actor: "alice", Way: flow.WayUI, Note: "the API is back", Key: form.Get("key"), Plan: "b5a1", Expect: &expect}
		require.Equal(t, want, asked[1], path)
	}
}

// Hold and resume need no preview, and lead back to where they were pressed.
func TestHoldAndResume(t *testing.T) {
	t.Parallel()
	store := fullStore("plain")
	store.act = func(a flow.Action) (flow.Effect, error) {
		require.False(t, a.DryRun)
		return flow.Effect{Tasks: []flow.TaskChange{{Seq: 3}}}, nil
	}
	s := newSite(t, Config{}, store)
	w := ask(s, access.Operator, http.MethodPost, "/flows/plain/hold", url.Values{"back": {"/flows?status=queued&did=old"}})
	require.Equal(t, "/flows?did=hold.1.plain&status=queued", w.Header().Get("Location"))
	page := get(s, "/flows/plain?did=hold.1.plain").Body.String()
	require.Contains(t, page, "1 task is held.")
	require.Contains(t, page, `action="/flows/plain/resume"`)
	w = ask(s, access.Operator, http.MethodPost, "/flows/plain/resume", url.Values{"back": {"//evil.example"}})
	require.Equal(t, "/?did=resume.1.plain", w.Header().Get("Location"))
	store.act = func(flow.Action) (flow.Effect, error) { panic("a GET changes nothing") }
	w = get(s, "/flows/a%2Fb/hold") // as of a page that says why it was refused
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, "/flows/a%2Fb", w.Header().Get("Location"))
}

// A URL can be written by anybody: it says nothing in Flower's name but numbers.
func TestDid(t *testing.T) {
	t.Parallel()
	none := func(flow.ActionKind, flow.ID) *undo { return nil }
	require.Equal(t, "3 tasks run again.", did("rerun.3.a.b", none).Text)
	require.Equal(t, "Nothing was left to do.", did("cancel.0.f", none).Text)
	for _, text := range []string{"", "rerun", "rerun.3", "pay.3.f", "rerun.x.f", "rerun.-1.f", "<b>.1.f"} {
		require.Nil(t, did(text, none), text)
	}
}

// Who goes back to a form and sends it again is not told that it was done: that was then.
func TestSentBefore(t *testing.T) {
	t.Parallel()
	store := fullStore("plain")
	store.act = func(flow.Action) (flow.Effect, error) {
		return flow.Effect{Tasks: []flow.TaskChange{{Seq: 3}}, Replayed: true}, nil
	}
	store.register = func(flow.Registration) (flow.Flow, error) { return flow.Flow{ID: "a/b", Replayed: true}, nil }
	s := newSite(t, Config{}, store)
	w := ask(s, access.Operator, http.MethodPost, "/flows/plain/rerun", url.Values{"key": {"k"}})
	require.Equal(t, "/flows/plain?did=before", w.Header().Get("Location"))
	require.Contains(t, get(s, w.Header().Get("Location")).Body.String(), "nothing more was done now")
	w = ask(s, access.Operator, http.MethodPost, "/workflows/nightly/register", url.Values{"key": {"k"}})
	require.Equal(t, "/flows/a%2Fb?did=before", w.Header().Get("Location"))
}

// What is refused comes back as the form, with why and with what would happen now.
func TestRefusedActions(t *testing.T) {
	t.Parallel()
	task := flow.Refusal{Seq: 2, Code: flow.RefusedTaskRunning, Detail: "Task 2 (load) runs. Cancel it first, or wait."}
	for name, c := range map[string]struct {
		err    error
		status int
		text   string
	}{
		"plan":    {&flow.PlanChangedError{}, http.StatusConflict, "changed since this was shown"},
		"refused": {&flow.RefusedError{Refused: []flow.Refusal{task}}, http.StatusConflict, "Task 2 (load) runs."},
		"guard":   {&flow.GuardError{Message: "only a watcher claims", Hint: "set 0"}, http.StatusConflict, "Nothing was done. Only a watcher claims: set 0."},
		"key":     {flow.ErrKeyReused, http.StatusConflict, "sent before"},
		"invalid": {&flow.InvalidError{Subject: "parameters", Problem: "too many"}, http.StatusUnprocessableEntity, "too many"},
		"away":    {flow.ErrUnavailable, http.StatusServiceUnavailable, "not available"},
		"other":   {errors.New("pq: oops"), http.StatusInternalServerError, "id of this request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := fullStore("plain")
			store.act = func(a flow.Action) (flow.Effect, error) {
				if a.DryRun {
					require.Nil(t, a.Expect, "the new plan, whatever the old one was")
					return flow.Effect{Tasks: []flow.TaskChange{{Flow: "plain", Seq: 3}, {Flow: "plain", Seq: 4}, {Flow: "plain", Seq: 5}}, Plan: "new"}, nil
				}
				return flow.Effect{}, c.err
			}
			s := newSite(t, Config{}, store)
			form := url.Values{"scope": {"from"}, "from": {"3"}, "plan": {"old"}, "expect": {"1"}, "note": {"my note"}, "parameters": {`{"a": 7}`}, "back": {"/flows"}}
			w := ask(s, access.Operator, http.MethodPost, "/flows/plain/rerun", form)
			require.Equal(t, c.status, w.Code)
			require.Contains(t, w.Body.String(), c.text)
			require.NotContains(t, w.Body.String(), "oops")
			if c.status >= 500 {
				return
			}
			got := fields(w.Body.String())
			require.Equal(t, []string{"new", "3", "from", "3", "/flows"},
				[]string{got.Get("plan"), got.Get("expect"), got.Get("scope"), got.Get("from"), got.Get("back")})
			require.Contains(t, w.Body.String(), "Rerun 3 tasks")
			require.Contains(t, w.Body.String(), "my note")
			require.Contains(t, w.Body.String(), "{&#34;a&#34;: 7}")
		})
	}
}

// Roles are asked again where it counts, whatever the layers outside do.
func TestRolesOfActions(t *testing.T) {
	t.Parallel()
	store := fullStore("plain")
	store.act = func(flow.Action) (flow.Effect, error) {
		return flow.Effect{}, errors.New("somebody got through")
	}
	store.register = func(flow.Registration) (flow.Flow, error) {
		return flow.Flow{}, errors.New("somebody got through")
	}
	s := newSite(t, Config{}, store)
	for path, role := range map[string]access.Role{
		"/flows/plain/rerun": access.Registrar, "/flows/plain/cancel": access.Registrar, "/flows/plain/hold": access.Reader,
		"/flows/plain/resume": access.Reader, "/flows/plain/tasks/3/skip": access.Registrar, "/flows/plain/tasks/3/finish": access.None,
		"/flows/plain/tasks/3/approve": access.Registrar, "/flows/plain/tasks/3/cancel": access.Registrar,
		"/workflows/plain/register": access.Reader,
	} {
		require.Equal(t, http.StatusForbidden, ask(s, role, http.MethodPost, path, url.Values{}).Code, path)
	}
}

func TestFieldsThatAreNoUse(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, fullStore("plain"))
	deep := strings.Repeat(`{"a":`, 102) + "1" + strings.Repeat("}", 102)
	for _, parameters := range []string{"[1]", "null", "1", "{", `{"a": 1} {"b": 2}`, `{"a": 1e400}`, `{"a": "\u0000"}`, `{"\u0000": 1}`, `{"token": "***"}`, deep} {
		w := ask(s, access.Operator, http.MethodPost, "/flows/plain/rerun", url.Values{"parameters": {parameters}, "note": {"my note"}})
		require.Equal(t, http.StatusUnprocessableEntity, w.Code, parameters)
		page := w.Body.String()
		require.Contains(t, page, "Nothing was done. Parameters: ", parameters)
		require.Contains(t, page, html.EscapeString(parameters)+"</textarea>", "what was typed is there")
		require.Contains(t, page, `value="my note"`)
	}
	for name, value := range map[string]string{"note": strings.Repeat("x", request.MaxNote+1), "from": "x"} {
		w := ask(s, access.Operator, http.MethodPost, "/flows/plain/rerun", url.Values{"scope": {"from"}, name: {value}})
		require.GreaterOrEqual(t, w.Code, 400, name)
		require.Less(t, w.Code, 500, name)
	}
	require.Equal(t, http.StatusBadRequest, ask(s, access.Operator, http.MethodPost, "/flows/plain/rerun", url.Values{"note": {"a\x00"}}).Code)
	require.Equal(t, http.StatusBadRequest, ask(s, access.Operator, http.MethodPost, "/flows/plain/rerun", url.Values{"note": {strings.Repeat("x", maxForm)}}).Code)
}
