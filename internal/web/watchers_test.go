package web

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestWatchers(t *testing.T) {
	t.Parallel()
	store := &fakeStore{watchers: []flow.WatcherState{
		{Watcher: flow.Watcher{ID: "1", Host: "a", PID: 1, Workers: 4, Programs: []string{"P", "Q"}}, State: "alive", Busy: 3},
		{Watcher: flow.Watcher{ID: "2", Host: "b", PID: 2, Workers: 2}, State: "dead"},
		{Watcher: flow.Watcher{ID: "3", Host: "c", PID: 3, Workers: 1}, State: "draining", Busy: 1},
	}}
	store.lists.storage = flow.Storage{AsOf: at(100), Schema: 22, Postgres: "15.18", Size: 3 << 30, Tables: []flow.TableSize{{Name: "kr_task_stat", Rows: 1234567, Bytes: 2 << 30}}}
	store.attention.Check = flow.Check{Done: true, Age: 12 * time.Second, Took: time.Second}
	s := newSite(t, Config{Version: "v1.2"}, store)
	page := get(s, "/watchers").Body.String()
	require.Contains(t, page, "3 of 4 workers busy")
	require.Less(t, strings.Index(page, "b:2"), strings.Index(page, "c:3"))
	require.Less(t, strings.Index(page, "c:3"), strings.Index(page, "a:1"))
	require.Contains(t, page, `All hold</span> <span class="muted">looked <time datetime="`+at(88).Format(stampLayout))
	for _, text := range []string{"≈ 1.2 million", "2 GiB", "3 GiB in all", "v1.2", "2 programs", "<dd>22</dd>"} {
		require.Contains(t, page, text)
	}

	store.attention.Check = flow.Check{Done: true, Broken: []flow.BrokenRule{{Rule: "ready twice", Rows: 3, Key: flow.TaskKey{Flow: "f", Seq: 2}, Detail: "d"}}}
	s = newSite(t, Config{}, store)
	page = get(s, "/watchers").Body.String()
	require.Contains(t, page, "1 rule is broken")
	require.Contains(t, page, `<strong>ready twice</strong>: 3 rows, such as <a href="/flows/f?task=2">`)

	page = get(newSite(t, Config{}, &fakeStore{}), "/watchers").Body.String()
	require.Contains(t, page, "No watcher has been here.")
	require.Contains(t, page, "Nobody has looked yet")
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 8192: "8 KiB", 15 << 20: "15 MiB", 1 << 50: "1 PiB", 1 << 62: "4096 PiB"} {
		require.Equal(t, want, bytesWords(n))
	}
	for n, want := range map[int64]string{0: "0", 99: "99", 1234: "1,200", 99999: "100,000", 1_250_000: "1.2 million", 3_000_000: "3 million"} {
		require.Equal(t, want, roughly(n))
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	waiting, suspended := flow.Waiting, flow.Suspended
	store := &fakeStore{events: []flow.Event{
		{ID: 10, At: at(10), Flow: "g", Seq: 2, WorkflowID: "nightly", Title: "load <orders>", Action: flow.ActionSkip, Actor: "erin"},
		{ID: 9, At: at(9), Flow: "a/b", Seq: 3, Action: flow.ActionRerun, From: &suspended, To: &waiting, Actor: "alice & bob", Way: flow.WayUI, Note: "the API is back"},
		{ID: 8, At: at(8), Flow: "f", Action: flow.ActionHold, From: &waiting, To: &suspended, Actor: "carol", Way: flow.WayAPI},
		{ID: 7, At: at(7), Flow: "f", Seq: 1, Actor: "dave", Application: "psql", Way: flow.WaySQL, Change: []byte(`{"priority": [1, 2]}`)},
		{ID: 6, At: at(6), Flow: "f", Seq: 1, Actor: "dave", Way: flow.WaySQL, Change: []byte(`{"output": ["` + strings.Repeat("long ", 10_000) + `", null]}`)},
	}}
	s := newSite(t, Config{BasePath: "/flower"}, store)
	page := get(s, "/events?kind=rerun&before=100").Body.String()
	require.Contains(t, page, `<strong>Rerun</strong> <span class="muted">was Suspended</span>`)
	require.Contains(t, page, `<strong>Held</strong> <span class="muted">was Waiting</span>`)
	require.Contains(t, page, "on a page")
	require.Contains(t, page, "in SQL, with psql")
	require.Contains(t, page, `{&#34;priority&#34;:[1,2]}`)
	require.Less(t, len(page), 30_000, "of what is long the beginning")
	require.Equal(t, "/flower/flows/a%2Fb?task=3", linkOf(page, "task 3 "))
	require.Equal(t, "/flower/flows/g?task=2", linkOf(page, "<strong>nightly</strong> 2 load &lt;orders&gt; "))
	require.Equal(t, "?"+url.Values{"kind": {"rerun"}, "actor": {"alice & bob"}}.Encode(), linkOf(page, "<strong>alice"))
	require.Equal(t, "?kind=rerun", linkOf(page, "‹ Newest"))

	empty := newSite(t, Config{}, &fakeStore{})
	require.Contains(t, get(empty, "/events").Body.String(), "Nobody has changed anything by hand.")
	require.Contains(t, get(empty, "/events?actor=x").Body.String(), "Clear the filter")
	require.Equal(t, http.StatusBadRequest, get(empty, "/events?kind=pay").Code)
	for _, kind := range flow.EventKinds {
		require.NotEmpty(t, eventWords[kind], kind)
	}
}
