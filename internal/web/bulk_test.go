package web

import (
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// formOf returns the fields of the form that acts, as a browser sends them.
func formOf(page string) url.Values {
	form := url.Values{}
	_, page, _ = strings.Cut(page, `<form method="post" action="`)
	page, _, _ = strings.Cut(page, "</form>")
	for _, m := range regexp.MustCompile(`<input type="(?:hidden|text)"[^>]* name="([^"]*)"(?:[^>]*? value="([^"]*)")?`).FindAllStringSubmatch(page, -1) {
		form.Add(m[1], html.UnescapeString(m[2]))
	}
	return form
}

// bulkStore notes what it is asked for.
func bulkStore(asked *[]flow.BulkAction, changed int) *fakeStore {
	store := &fakeStore{}
	store.lists.actAll = func(b flow.BulkAction) (flow.BulkEffect, error) {
		*asked = append(*asked, b)
		return flow.BulkEffect{DryRun: b.DryRun, Changed: changed, Flows: []flow.FlowChange{{Flow: "a", Changed: changed}}, Plan: "b5a1"}, nil
	}
	return store
}

// What the preview shows is what the form asks for, and nothing is done before.
func TestBulk_PreviewAndAct(t *testing.T) {
	t.Parallel()
	key := flow.FailureKey{WorkflowID: "nightly", TaskSeq: 3, Program: "P", Reason: flow.ReasonTimeout, Fingerprint: "9c1f"}
	group := groupQuery(key).String()[1:]
	since := time.Date(2026, 11, 23, 3, 0, 0, 123000, time.UTC)
	var asked []flow.BulkAction
	store := bulkStore(&asked, 12)
	manyFlows(store, 1203)
	store.lists.groups.AsOf = since.Add(24 * time.Hour)
	s := newSite(t, Config{BasePath: "/flower"}, store)
	everyID := make([]flow.ID, 1203)
	for i := range everyID {
		everyID[i] = flow.ID(fmt.Sprintf("f%03d", 1203-i))
	}
	for path, want := range map[string]flow.BulkAction{
		"rerun?flow=b&flow=a&flow=b":      {Scope: flow.ScopeFailed, Flows: []flow.ID{"a", "b"}},
		"rerun?flow=a&scope=all":          {Scope: flow.ScopeAll, Flows: []flow.ID{"a"}},
		"cancel?flow=a&scope=all":         {Flows: []flow.ID{"a"}},
		"hold?all=1&status=queued&flow=x": {Flows: everyID},
		"rerun?" + group:                  {Scope: flow.ScopeFailed, Filter: flow.BulkFilter{Group: &key}},
		"skip?" + group + "&since=24h":    {Filter: flow.BulkFilter{Group: &key, FailedSince: since}},
	} {
		asked = nil
		kind, _, _ := strings.Cut(path, "?")
		want.Kind = flow.ActionKind(kind)
		page := get(s, "/bulk/"+path).Body.String()
		preview := want
		preview.DryRun = true
		require.Equal(t, []flow.BulkAction{preview}, asked, path)

		form := formOf(page)
		require.Equal(t, "b5a1", form.Get("plan"), path)
		require.Len(t, form.Get("key"), 36, path)
		form.Set("note", " back at 09:10 ")
		form.Set("back", "/flows?status=failed&did=old")
		w := ask(s, access.Operator, http.MethodPost, "/bulk/"+kind, form)
		require.Equal(t, http.StatusSeeOther, w.Code, path)
		require.Equal(t, "/flower/flows?did=bulk."+kind+".12.1&status=failed", w.Header().Get("Location"))
		expect := 12
		want.Terms = flow.Terms{Actor: "alice", Way: flow.WayUI, Note: "back at 09:10", Key: form.Get("key"), Plan: "b5a1", Expect: &expect, Asked: asked[1].Asked}
		require.Equal(t, strings.Contains(path, "all=1"), want.Asked != "", path)
		require.Equal(t, want, asked[1], path)
	}
	require.Contains(t, get(s, "/bulk/rerun?flow=a&flow=b").Body.String(), "<strong>1 flow stays as it is</strong>", "none of those chosen is passed over")
	require.NotContains(t, get(s, "/bulk/rerun?flow=a").Body.String(), "as it is")
	require.Contains(t, get(s, "/flows?did=bulk.rerun.12.9").Body.String(), "12 tasks run again, in 9 flows.")
	for _, text := range []string{"rerun", "rerun.1", "pay.1.1", "rerun.x.1", "rerun.1.-1", "rerun.1.1.1"} {
		require.Nil(t, didBulk(text), text)
	}
}

// A form without what a preview promised does nothing.
func TestBulk_NeedsItsPreview(t *testing.T) {
	t.Parallel()
	var asked []flow.BulkAction
	s := newSite(t, Config{}, bulkStore(&asked, 3))
	for _, form := range []url.Values{
		{"flow": {"a"}}, {"flow": {"a"}, "expect": {"3"}}, {"flow": {"a"}, "plan": {"b5a1"}}, {"flow": {"a"}, "plan": {"b5a1"}, "expect": {"x"}},
	} {
		w := ask(s, access.Operator, http.MethodPost, "/bulk/rerun", form)
		require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	}
	require.False(t, slices.ContainsFunc(asked, func(b flow.BulkAction) bool { return !b.DryRun }))
	require.Equal(t, http.StatusForbidden, ask(s, access.Reader, http.MethodPost, "/bulk/rerun", url.Values{"flow": {"a"}}).Code)
}

// A form for all that match can be sent again, as where the answer did not come: it is the
// same request, whatever matches by then. Where nothing does, the page says so.
func TestBulk_AllSentAgain(t *testing.T) {
	t.Parallel()
	var asked []flow.BulkAction
	store := bulkStore(&asked, 3)
	manyFlows(store, 3)
	s := newSite(t, Config{}, store)
	form := formOf(get(s, "/bulk/rerun?all=1&status=failed").Body.String())
	send := func(back string) (int, string) {
		form.Set("back", back)
		w := ask(s, access.Operator, http.MethodPost, "/bulk/rerun", form)
		return w.Code, w.Body.String()
	}
	code, _ := send("/flows")
	require.Equal(t, http.StatusSeeOther, code)
	manyFlows(store, 2)
	code, _ = send("/flows?at=x")
	require.Equal(t, http.StatusSeeOther, code)
	require.Len(t, asked, 3)
	require.Contains(t, asked[1].Asked, "status=failed")
	require.Equal(t, asked[1].Asked, asked[2].Asked)
	require.NotEqual(t, asked[1].Flows, asked[2].Flows)
	manyFlows(store, 0)
	code, page := send("/flows")
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, page, "No flow matches any more")
	require.Len(t, asked, 3)
}

// Of more than twenty tasks the count is typed where it cannot be taken back.
func TestBulk_Typed(t *testing.T) {
	t.Parallel()
	for changed, typed := range map[int]bool{20: false, 21: true} {
		for _, kind := range []string{"rerun", "cancel", "hold", "resume", "skip", "finish"} {
			must := typed && (kind == "cancel" || kind == "skip" || kind == "finish")
			var asked []flow.BulkAction
			s := newSite(t, Config{}, bulkStore(&asked, changed))
			page := get(s, "/bulk/"+kind+"?flow=a").Body.String()
			require.Equal(t, must, strings.Contains(page, `name="typed"`), kind)
			form := formOf(page)
			if must {
				for _, wrong := range []string{"", "20", "x"} {
					form.Set("typed", wrong)
					w := ask(s, access.Operator, http.MethodPost, "/bulk/"+kind, form)
					require.Equal(t, http.StatusUnprocessableEntity, w.Code)
					require.Contains(t, w.Body.String(), "type 21")
				}
				require.False(t, slices.ContainsFunc(asked, func(b flow.BulkAction) bool { return !b.DryRun }))
				form.Set("typed", " 21 ")
			}
			require.Equal(t, http.StatusSeeOther, ask(s, access.Operator, http.MethodPost, "/bulk/"+kind, form).Code, kind)
		}
	}
}

// Flows that are in the way are told, stay chosen, and the others were changed.
func TestBulk_PartlyDone(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	store.lists.actAll = func(b flow.BulkAction) (flow.BulkEffect, error) {
		return flow.BulkEffect{
			DryRun: b.DryRun, Changed: 2, Flows: []flow.FlowChange{{Flow: "a", Changed: 2}}, Plan: "p", RefusedCount: 102,
			Refused: []flow.Refusal{{Flow: "b/<c>", Seq: 2, Detail: "Task 2 (load) runs. Cancel it first, or wait."}},
		}, nil
	}
	s := newSite(t, Config{}, store)
	page := get(s, "/bulk/rerun?flow=a&flow=b%2F%3Cc%3E").Body.String()
	require.Contains(t, page, "102 flows are left alone")
	w := ask(s, access.Operator, http.MethodPost, "/bulk/rerun", formOf(page))
	require.Equal(t, http.StatusMultiStatus, w.Code)
	page = w.Body.String()
	require.Contains(t, page, "102 flows were left alone")
	require.Contains(t, page, "2 tasks run again, in 1 flow.")
	require.Contains(t, page, `name="flow" value="b/&lt;c&gt;" checked`)
	require.Contains(t, page, "Task 2 (load) runs.")
	require.Contains(t, page, "the first 1 of 102")
}

func TestBulk_Refused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		status int
		text   string
	}{
		"plan":    {&flow.PlanChangedError{}, http.StatusConflict, "has changed since this was shown"},
		"guard":   {&flow.GuardError{Message: "only a watcher claims", Hint: "set 0"}, http.StatusConflict, "only a watcher claims: set 0"},
		"key":     {flow.ErrKeyReused, http.StatusConflict, "sent before"},
		"invalid": {&flow.InvalidError{Subject: "parameters", Problem: "too many"}, http.StatusUnprocessableEntity, "too many"},
		"slow":    {fmt.Errorf("rerun: %w", flow.ErrTooSlow), http.StatusServiceUnavailable, "Nothing was done. The database did not get through"},
		"many":    {flow.ErrTooMany, http.StatusUnprocessableEntity, "Narrow it down"},
		"away":    {flow.ErrUnavailable, http.StatusServiceUnavailable, "not available"},
		"other":   {errors.New("pq: oops"), http.StatusInternalServerError, "id of this request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &fakeStore{}
			store.lists.actAll = func(b flow.BulkAction) (flow.BulkEffect, error) {
				if b.DryRun {
					return flow.BulkEffect{Changed: 7, Plan: "new"}, nil
				}
				return flow.BulkEffect{}, c.err
			}
			s := newSite(t, Config{}, store)
			form := url.Values{"flow": {"a"}, "plan": {"old"}, "expect": {"3"}, "note": {"why"}}
			w := ask(s, access.Operator, http.MethodPost, "/bulk/rerun", form)
			require.Equal(t, c.status, w.Code)
			require.Contains(t, strings.ToLower(w.Body.String()), strings.ToLower(c.text))
			if c.status == http.StatusConflict {
				form := formOf(w.Body.String())
				require.Equal(t, []string{"new", "7", "why", "a"}, []string{form.Get("plan"), form.Get("expect"), form.Get("note"), form.Get("flow")})
			}
		})
	}
}

// More flows than one action may be on are refused before anything is asked.
func TestBulk_TooManyFlows(t *testing.T) {
	t.Parallel()
	var asked []flow.BulkAction
	store := bulkStore(&asked, 1)
	manyFlows(store, maxPicked+1)
	w := get(newSite(t, Config{}, store), "/bulk/rerun?all=1&status=failed")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "More than 10,000 flows match")
	require.Empty(t, asked)
}

// A preview that takes too long says what would take less, and does not begin again by itself.
func TestBulk_TakesTooLong(t *testing.T) {
	t.Parallel()
	slow := fmt.Errorf("rerun many flows: %w: pq: canceled", flow.ErrTooSlow)
	ticked, listed := &fakeStore{}, &fakeStore{}
	ticked.lists.actAll = func(flow.BulkAction) (flow.BulkEffect, error) { return flow.BulkEffect{}, slow }
	listed.lists.page = func(flow.Filter, flow.Position, int) (flow.Page, error) { return flow.Page{}, slow }
	for path, store := range map[string]*fakeStore{"/bulk/rerun?flow=a": ticked, "/bulk/cancel?all=1&status=queued": listed} {
		w := get(newSite(t, Config{}, store), path)
		require.Equal(t, http.StatusServiceUnavailable, w.Code, path)
		require.Contains(t, w.Body.String(), "This took too long", path)
		require.Contains(t, w.Body.String(), "Choose fewer flows, or narrow the filter", path)
		require.NotContains(t, w.Body.String(), "not available", path)
		require.NotContains(t, w.Body.String(), "http-equiv", path)
	}
}

// Count, list and button of a group mean the same tasks, and say which.
func TestFailures(t *testing.T) {
	t.Parallel()
	key := flow.FailureKey{WorkflowID: "nightly", TaskSeq: 3, Program: "HTTPPostRequest", Fingerprint: "9c1f"}
	store := &fakeStore{}
	store.lists.groups.Groups = []flow.FailureGroup{{
		Tasks: flow.Count{N: 12}, Flows: flow.Count{N: 9}, WorkflowID: key.WorkflowID, TaskSeq: 3, Title: "load_orders", Program: key.Program,
		Fingerprint: key.Fingerprint, Error: "POST /x: 503 from 0199aabbccdd", Latest: flow.TaskKey{Flow: "f", Seq: 7}, Recover: "UPDATE …",
	}}
	var listed []flow.Filter
	store.lists.page = func(f flow.Filter, _ flow.Position, limit int) (flow.Page, error) {
		listed = append(listed, f)
		return flow.Page{Flows: fullLists("x").mustPage(limit)}, nil
	}
	s := newSite(t, Config{}, store)
	page := get(s, "/failures?since=24h").Body.String()
	require.Contains(t, page, "12 failed tasks in 1 group")
	require.Contains(t, page, `<span class="varies">503</span> from <span class="varies">0199aabbccdd</span>`)
	bulk := linkOf(page, "Rerun 12 tasks…")
	u, err := url.Parse(bulk)
	require.NoError(t, err)
	got, err := groupOf(query{u.Query()})
	require.NoError(t, err)
	require.Equal(t, &key, got)
	require.Equal(t, "24h", u.Query().Get("since"))
	require.Equal(t, "/failures?since=24h", u.Query().Get("back"))
	require.Empty(t, listed)

	u, err = url.Parse(linkOf(page, "All 9 flows"))
	require.NoError(t, err)
	f, err := filterOf(query{u.Query()})
	require.NoError(t, err)
	require.Equal(t, flow.Filter{Group: &key}, f)

	open := linkOf(page, `nightly <span class="muted">/</span> 3 load_orders`)
	require.Contains(t, get(s, "/failures"+open).Body.String(), "All 9 flows of this group")
	require.Equal(t, []flow.Filter{{Group: &key}}, listed)
	require.Contains(t, get(newSite(t, Config{}, &fakeStore{}), "/failures").Body.String(), "Nothing is failed.")
	require.Contains(t, get(newSite(t, Config{}, &fakeStore{}), "/failures?taskId=x").Body.String(), "Clear the filter")
}

func (l fakeLists) mustPage(limit int) []flow.Summary {
	page, _ := l.page(flow.Filter{}, flow.Position{}, limit)
	return page.Flows
}
