package web

import (
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// sample is a flow with a task in every state, in which every text is what is given.
func sample(text string) flow.State {
	at := time.Date(2026, 11, 23, 3, 12, 1, 0, time.UTC)
	id := flow.ID(text)
	s := flow.State{
		Flow:   flow.Flow{ID: id, WorkflowID: flow.WorkflowID(text), RegisteredAt: at, Parameters: object1(text)},
		Status: flow.FlowFailed, AsOf: at.Add(time.Hour), RegisteredBy: text, Note: text, Recover: text,
	}
	add := func(status flow.Status, change func(*flow.TaskState)) {
		seq := len(s.Tasks) + 1
		t := flow.TaskState{
			TaskKey: flow.TaskKey{Flow: id, Seq: seq}, WorkflowID: s.WorkflowID, TaskSeq: seq, Program: text, Description: text,
			Parameters: object1(text), Status: status, Attempt: 2, MaxAttempts: 3, WatcherID: text, RegisteredAt: at, StartedAt: at,
		}
		if seq > 1 {
			t.Parents = []int{seq - 1}
		}
		change(&t)
		s.Tasks = append(s.Tasks, t)
	}
	add(flow.Finished, func(t *flow.TaskState) { t.FinishedAt, t.Output, t.Failed = at.Add(time.Second), object1(text), 1 })
	add(flow.Running, func(*flow.TaskState) {})
	for i, reason := range []flow.Reason{flow.ReasonFailed, flow.ReasonTimeout, flow.ReasonLost, flow.ReasonInvalid, flow.ReasonCancelled, flow.ReasonHeld, "", flow.Reason(text)} {
		add(flow.Suspended, func(t *flow.TaskState) {
			t.Reason, t.Error, t.SuspendedAt = reason, text+strings.Repeat("\n"+text, 3*i), at.Add(time.Duration(i)*time.Second)
		})
	}
	add(flow.Ignored, func(t *flow.TaskState) { t.Error = text })
	add(42, func(*flow.TaskState) {})
	for _, reason := range flow.WaitReasons {
		add(flow.Waiting, func(t *flow.TaskState) {
			t.Parents, t.RunAfter = []int{1}, at.Add(2*time.Hour)
			t.Wait = flow.Wait{Reason: reason, Why: text, For: []int{1, 2}, Position: 7}
			t.Child = id
		})
	}
	add(flow.Suspended, func(t *flow.TaskState) {
		t.Reason, t.Error, t.SuspendedAt, t.Asks = flow.ReasonHeld, text+"\n"+text, at, true
	})
	s.Parent = flow.TaskKey{Flow: id, Seq: 1}
	return s
}

func object1(text string) []byte {
	return []byte(fmt.Sprintf(`{%q: %q, "PASSWORD": %[2]q}`, text, text))
}

// fullStore has something of everything, and every text in it is what is given.
func fullStore(text string) *fakeStore {
	s := sample(text)
	at := s.AsOf
	waiting, suspended := flow.Waiting, flow.Suspended
	return &fakeStore{
		flow: func(flow.ID) (flow.State, error) { return s, nil },
		act: func(a flow.Action) (flow.Effect, error) {
			e := flow.Effect{DryRun: a.DryRun, Tasks: []flow.TaskChange{{Flow: a.Flow, Seq: 3, Title: text, From: suspended, To: waiting}}, CanGo: []int{3}, Follow: []int{14}, Plan: text}
			if a.Scope == flow.ScopeAll {
				e.Refused = []flow.Refusal{{Flow: a.Flow, Seq: 2, Title: text, Code: flow.RefusedTaskRunning, Detail: text}}
				return e, &flow.RefusedError{Refused: e.Refused, Effect: e}
			}
			return e, nil
		},
		find: func(string) []flow.ID { return []flow.ID{flow.ID(text), flow.ID(text + "2")} },
		log: func(f flow.LogFilter) (flow.LogPage, error) {
			line := flow.LogLine{No: 7, At: at, Stream: flow.StreamStderr, Text: text}
			long := flow.LogLine{No: 8, At: at, Stream: flow.Stream(text), Text: strings.Repeat(text+" ", lineShow/len(text)+2)}
			return flow.LogPage{Attempt: 2, Lines: []flow.LogLine{line, long}, More: true, Running: true}, nil
		},
		workflow: func(id flow.WorkflowID) (flow.WorkflowState, error) {
			tasks := []flow.TaskDefinition{{Seq: 1, Program: text, Parameters: object1(text), Description: text}, {Seq: 2, Program: text}}
			return flow.WorkflowState{Workflow: flow.Workflow{ID: id, Tasks: tasks}, Description: text, Problems: []string{text}}, nil
		},
		register: func(flow.Registration) (flow.Flow, error) {
			return flow.Flow{}, &flow.InvalidError{Subject: text, Problem: text}
		},
		attempts: []flow.Attempt{
			{Number: 2, Current: true, Status: flow.Suspended, Reason: flow.ReasonFailed, Error: text, WatcherID: text, StartedAt: at, EndedAt: at},
			{Number: 1, Status: flow.Running, Error: text, Output: object1(text), StartedAt: at},
		},
		events: []flow.Event{
			{ID: 1, At: at, Seq: 3, From: &suspended, To: &waiting, Note: text, Actor: text, Application: text, Way: flow.Way(text), Login: text},
			{ID: 2, At: at, Change: object1(text), Actor: text, Action: flow.ActionKind(text)},
		},
		flows:     []flow.Summary{{Flow: s.Flow, Status: text}},
		watchers:  []flow.WatcherState{{Watcher: flow.Watcher{ID: text, Host: text, PID: 7}, State: "dead"}},
		attention: flow.Attention{Strangers: []string{text}},
		lists:     fullLists(text),
	}
}

// everyPage is a request for each page, with the forms that are refused.
func everyPage(id string) map[string]*http.Request {
	p := "/flows/" + url.PathEscape(id)
	w := "/workflows/" + url.PathEscape(id)
	pages := map[string]*http.Request{}
	for _, path := range []string{
		"/help", "/login", "/login?next=" + url.QueryEscape(id), "/nothing", "/search?q=nothing",
		p, p + "?task=3", p + "?task=3&panel=log&q=x", p + "?task=1&panel=data", p + "?task=3&panel=attempts", p + "?task=3&panel=error&attempt=1",
		p + "?task=3&panel=events", p + "?task=3&panel=sql", p + "?task=99&panel=" + url.QueryEscape(id), p + "?did=" + url.QueryEscape("hold.2."+id),
		p + "/rerun", p + "/rerun?scope=from&from=3", p + "/rerun?scope=all", p + "/cancel", p + "/tasks/3/skip", p + "/tasks/3/finish", p + "/tasks/3/approve", p + "/tasks/3/cancel",
		p + "/tasks/22/approve", p + "/tasks/22/cancel", p + "?task=22", p + "?task=22&panel=error",
		p + "/tasks/3/log", p + "/tasks/3/log?before=9&wrap=0&q=" + url.QueryEscape(id), w + "/register", w + "/register?flow=" + url.QueryEscape(id),
	} {
		pages["GET "+path] = sent(http.MethodGet, path, nil)
	}
	maps.Copy(pages, listPages(id))
	pages["POST register"] = sent(http.MethodPost, w+"/register", url.Values{"parameters": {`{"a": 1}`}, "note": {id}, "priority": {"3"}})
	pages["POST rerun"] = sent(http.MethodPost, p+"/rerun", url.Values{"scope": {"all"}, "note": {id}, "parameters": {`{"a": 1}`}, "back": {id}})
	return pages
}

// payloads are texts that mean something to a browser, a terminal or a database.
var payloads = []string{
	`<script>alert(1)</script>`, `"><script>alert(1)</script>`, `'><img src=x onerror=alert(1)>`, `</title><script>alert(1)</script>`,
	`</textarea><script>alert(1)</script>`, `</style><script>alert(1)</script>`, `<svg onload=alert(1)>`, `<iframe src="javascript:alert(1)">`,
	`javascript:alert(1)`, `JaVaScRiPt:alert(1)//`, `data:text/html,<script>alert(1)</script>`, `" onmouseover="alert(1)`, `' onfocus='alert(1)' autofocus='`,
	"` onclick=`alert(1)", `{{.Shell}}`, `{{template "layout" .}}`, `<!--`, `-->`, `]]>`, `<![CDATA[<script>]]>`, `&lt;script&gt;`, `&#60;script&#62;`,
	`%3Cscript%3E`, `\u003cscript\u003e`, "\x1b[31m<b>red</b>\x1b[0m", "a\u202eb\u2066c", "line\nline\r\nline", "tab\there", `'; DROP TABLE kr_task_stat; --`,
	`../../etc/passwd`, `//evil.example/x`, `https://evil.example/"onclick="alert(1)`, `?task=1&x=<b>`, `#fragment`, `夜間バッチ/二番目 %2F`, strings.Repeat("W", 256),
	"\u2028\u2029", "null", "\"", "'", "<", "http://a/<script>",
}

var (
	tag       = regexp.MustCompile(`<[a-zA-Z!/][^>]*>`)
	attribute = regexp.MustCompile(`([a-zA-Z_:@-][a-zA-Z0-9_:@.-]*)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+))?`)
	tagName   = regexp.MustCompile(`^</?([a-zA-Z0-9!-]+)`)
)

// skeleton is a page's tags with the names of their attributes: what no text may change.
// It checks on the way that nothing of a page is a script, a handler or a style.
type skeleton map[string][]string // by the tag as it is written

func (s skeleton) of(t *testing.T, what, page string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, text := range tags(page) {
		keys, known := s[text]
		if !known {
			keys = bones(t, what, text)
			s[text] = keys
		}
		for _, key := range keys {
			found[key] = true
		}
	}
	return found
}

// tags returns what tag matches: by hand, since megabytes of pages are searched.
func tags(page string) []string {
	var all []string
	for i := strings.IndexByte(page, '<'); i >= 0; i = strings.IndexByte(page, '<') {
		page = page[i:]
		end := strings.IndexByte(page, '>')
		switch {
		case end < 0:
			return all
		case (page[1]|0x20 < 'a' || page[1]|0x20 > 'z') && page[1] != '!' && page[1] != '/':
			page = page[1:]
		default:
			all = append(all, page[:end+1])
			page = page[end+1:]
		}
	}
	return all
}

func TestTags(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"", "a<b", "<", "<>", "< <b>", "<<b>", "<a <b>>", "</a><!-- x --><1><br/>\n<a\nhref=x>é", "<é>", "a <b"} {
		require.Equal(t, tag.FindAllString(page, -1), tags(page), page)
	}
}

func bones(t *testing.T, what, text string) []string {
	t.Helper()
	name := strings.ToLower(tagName.FindStringSubmatch(text)[1])
	keys := []string{"<" + name}
	if text[1] == '/' {
		return keys
	}
	require.False(t, name == "script" && !strings.Contains(text, " src="), "%s: %s", what, text)
	require.NotContains(t, []string{"style", "base", "iframe", "object", "embed"}, name, "%s: %s", what, text)
	for _, a := range attribute.FindAllStringSubmatch(text[len(name)+1:len(text)-1], -1) {
		key, value := strings.ToLower(a[1]), html.UnescapeString(strings.Trim(a[2], `"'`))
		keys = append(keys, name+" "+key)
		require.False(t, strings.HasPrefix(key, "on") || key == "style" || key == "srcdoc", "%s: %s", what, text)
		switch key {
		case "href", "src", "action", "formaction":
			u, err := url.Parse(value)
			require.NoError(t, err, "%s: %s", what, text)
			require.Contains(t, []string{"", "http", "https"}, u.Scheme, "%s: %s", what, text)
			require.True(t, u.Host == "" || strings.Contains(text, "noopener"), "%s: %s", what, text)
		}
	}
	return keys
}

// Whatever the texts in the database are, they are text: a page has the same tags and
// attributes as with plain ones, but for links to what is said.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	bones := skeleton{}
	plain := map[string]bool{"a rel": true, "a href": true, "bdi class": true, "bdi data-code": true, "<bdi": true, "span class": true, "code class": true, "p tabindex": true}
	store := fullStore("plain")
	s := newSite(t, Config{}, store)
	for what, r := range everyPage("plain") {
		for key := range bones.of(t, what, serve(s, access.Admin, r).Body.String()) {
			plain[key] = true
		}
	}
	for i, payload := range payloads {
		*store = *fullStore(payload)
		pages := everyPage(payload)
		for j, what := range slices.Sorted(maps.Keys(pages)) {
			// Each meets many of the others, and the page of a flow all of them.
			if (i+j)%5 != 0 && !strings.HasSuffix(what, "?task=3") {
				continue
			}
			s.news.at = time.Time{} // the banner is of this payload
			w := serve(s, access.Admin, pages[what])
			require.Less(t, w.Code, 500, "%q: %s", payload, what)
			for key := range bones.of(t, fmt.Sprintf("%q: %s", payload, what), w.Body.String()) {
				require.True(t, plain[key], "%q: %s: %s is not in the page of plain texts", payload, what, key)
			}
		}
	}
}

// The texts are there, and are what was written.
func TestTextsAreShown(t *testing.T) {
	t.Parallel()
	for _, payload := range payloads[:6] {
		s := newSite(t, Config{}, fullStore(payload))
		page := serve(s, access.Admin, sent(http.MethodGet, "/flows/x?task=3", nil)).Body.String()
		text := html.UnescapeString(tag.ReplaceAllString(page, ""))
		require.Contains(t, text, payload)
	}
}

// With nothing there, each page says so and does not fall over.
func TestEmptyPages(t *testing.T) {
	t.Parallel()
	empty := &fakeStore{flow: func(id flow.ID) (flow.State, error) { return flow.State{Flow: flow.Flow{ID: id}}, nil }}
	empty.act = func(flow.Action) (flow.Effect, error) { return flow.Effect{}, nil }
	empty.workflow = func(flow.WorkflowID) (flow.WorkflowState, error) { return flow.WorkflowState{}, nil }
	empty.register = func(flow.Registration) (flow.Flow, error) { return flow.Flow{}, flow.ErrNotFound }
	s := newSite(t, Config{}, empty)
	for what, r := range everyPage("none") {
		w := serve(s, access.Reader, r)
		skeleton{}.of(t, what, w.Body.String())
		require.Less(t, w.Code, 500, what)
	}
}

// The values of parameters that look like secrets are on no page.
func TestSecretsAreMasked(t *testing.T) {
	t.Parallel()
	store := fullStore("plain")
	base := store.flow
	store.flow = func(id flow.ID) (flow.State, error) {
		s, err := base(id)
		for i := range s.Tasks {
			s.Tasks[i].Parameters = []byte(`{"db": {"api_token": "canary-7"}, "list": [{"Password": "canary-7"}]}`)
		}
		s.Parameters = []byte(`{"AUTH": "canary-7"}`)
		return s, err
	}
	store.events[1].Change = []byte(`{"parameters": [{"api_token": "canary-7"}, {"list": [{"Password": "canary-7"}]}]}`)
	s := newSite(t, Config{}, store)
	for what, r := range everyPage("plain") {
		require.NotContains(t, serve(s, access.Admin, r).Body.String(), "canary-7", what)
	}
}

// A page has no present moment in it: asked for twice, it is the same to the byte, though
// the clock has gone on.
func TestPagesKeepStill(t *testing.T) {
	t.Parallel()
	store := fullStore("plain")
	base := store.flow
	moment := time.Duration(0)
	store.flow = func(id flow.ID) (flow.State, error) {
		s, err := base(id)
		moment += 700 * time.Millisecond
		s.AsOf = s.AsOf.Add(moment)
		return s, err
	}
	s := newSite(t, Config{}, store)
	for what, r := range everyPage("plain") {
		if r.Method == http.MethodGet && !strings.Contains(what, "rerun") && !strings.Contains(what, "/skip") &&
			!strings.Contains(what, "/finish") && !strings.Contains(what, "/cancel") && !strings.Contains(what, "/approve") && !strings.Contains(what, "register") &&
			!strings.Contains(what, "/bulk/") {
			first := serve(s, access.Admin, r.Clone(r.Context()))
			require.Equal(t, first.Body.String(), serve(s, access.Admin, r.Clone(r.Context())).Body.String(), what)
		}
	}
}

// What is said of the selected task is further down than the list, which leads there.
func TestListLeadsToTheDetails(t *testing.T) {
	t.Parallel()
	page := get(newSite(t, Config{}, fullStore("plain")), "/flows/plain?task=2").Body.String()
	require.Contains(t, page, `<a href="#task">Details of task 2 ↓</a>`)
	require.Contains(t, page, `id="task"`)
}

// Who may not act sees the buttons all the same, disabled, with the reason.
func TestReaderSeesWhy(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, fullStore("plain"))
	page := serve(s, access.Reader, sent(http.MethodGet, "/flows/plain", nil)).Body.String()
	require.Contains(t, page, "Rerun from here")
	require.Contains(t, page, "This needs the role operator, and &#34;alice&#34; has the role reader")
	require.NotContains(t, page, "data-dialog>Rerun")
	require.NotContains(t, page, `action="/flows/plain/hold"`)

	page = serve(s, access.Reader, sent(http.MethodGet, "/flows/plain/rerun", nil)).Body.String()
	require.Regexp(t, `<button class="primary" disabled`, page)
	page = serve(s, access.Reader, sent(http.MethodGet, "/workflows/plain/register", nil)).Body.String()
	require.Contains(t, page, "This needs the role registrar")
}

// Of a workflow that was deleted meanwhile no other flow can be registered.
func TestRegisterAnother(t *testing.T) {
	t.Parallel()
	store, state := fullStore("plain"), sample("plain")
	store.flow = func(flow.ID) (flow.State, error) { return state, nil }
	s := newSite(t, Config{}, store)
	require.Contains(t, get(s, "/flows/plain").Body.String(), `<li><a href="/workflows/plain/register?flow=plain" data-dialog>Register another…</a></li>`)
	state.Undefined = true
	page := get(s, "/flows/plain").Body.String()
	require.Regexp(t, `title="Its workflow has no definition now">Register another…<span class="unseen"> – Its workflow`, page)
	require.NotContains(t, page, "register?flow=")
}

// A form that was sent all the same is refused before it is here: then that is a page, too.
func TestRefuse(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{})
	who := access.Principal{Name: "rita", Role: access.Reader}
	r := sent(http.MethodPost, "/flows/plain/rerun", nil, "Accept", "text/html")
	w := httptest.NewRecorder()
	s.Refuse(w, r.WithContext(problem.With(access.With(r.Context(), who), outside{})), who.Require(access.Operator))
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Equal(t, policy, w.Header().Get("Content-Security-Policy"))
	require.Contains(t, w.Body.String(), `<h1 id="sheet-title">Not allowed</h1>`)
	require.Contains(t, w.Body.String(), "This needs the role operator, and &#34;rita&#34; has the role reader")
}

// The database is away: the page says so, and asks again by itself.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{flow: func(flow.ID) (flow.State, error) {
		return flow.State{}, fmt.Errorf("dial tcp 10.0.0.7:5432: %w", flow.ErrUnavailable)
	}})
	w := get(s, "/flows/x")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "5", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), `http-equiv="refresh"`)
	require.NotContains(t, w.Body.String(), "10.0.0.7")
	require.Empty(t, w.Header().Get("ETag"))
}

// A form is not sent again by loading its page again: many have no page to be loaded at all.
func TestUnavailable_Form(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{act: func(flow.Action) (flow.Effect, error) {
		return flow.Effect{}, flow.ErrUnavailable
	}})
	w := ask(s, access.Operator, http.MethodPost, "/flows/x/hold", url.Values{}, "Accept", "text/html")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Contains(t, w.Body.String(), "send the form again")
	require.NotContains(t, w.Body.String(), `http-equiv="refresh"`)
	require.NotContains(t, w.Body.String(), "Try again")
}

// A flow that is deleted while its page is read is one that is not there: no fault of ours.
func TestDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	store := fullStore("plain")
	store.log = func(flow.LogFilter) (flow.LogPage, error) {
		return flow.LogPage{}, fmt.Errorf("read: %w", flow.ErrNotFound)
	}
	s := newSite(t, Config{}, store)
	for _, path := range []string{"/flows/plain", "/flows/plain?task=1&panel=log", "/flows/plain/tasks/1/log"} {
		require.Equal(t, http.StatusNotFound, get(s, path).Code, path)
	}
}

// What is unexpected is for the log alone.
func TestInternalError(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{flow: func(flow.ID) (flow.State, error) {
		return flow.State{}, fmt.Errorf("pq: relation kr_flow at 10.0.0.7")
	}})
	w := get(s, "/flows/x")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.NotContains(t, w.Body.String(), "pq:")
	require.NotContains(t, w.Body.String(), "10.0.0.7")
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	store := &fakeStore{flows: []flow.Summary{{Flow: flow.Flow{ID: "newest", WorkflowID: "nightly"}, Status: "failed"}}}
	store.find = func(prefix string) []flow.ID {
		return map[string][]flow.ID{"01a213": {"01a213b2"}, "01a214": {"01a214a", "01a214b"}, "a/b c%": {"a/b c%d"}}[prefix]
	}
	s := newSite(t, Config{BasePath: "/flower"}, store)

	w := get(s, "/flows/unheard<b>of")
	require.Equal(t, http.StatusNotFound, w.Code)
	require.Contains(t, w.Body.String(), "unheard&lt;b&gt;of")
	require.Contains(t, w.Body.String(), `href="/flower/flows/newest"`)

	require.Equal(t, "/flower/flows/01a213b2", get(s, "/flows/01a213").Header().Get("Location"))
	require.Equal(t, "/flower/flows/a%2Fb%20c%25d", get(s, "/flows/a%2Fb%20c%25").Header().Get("Location"))
	w = get(s, "/flows/01a214")
	require.Equal(t, http.StatusNotFound, w.Code)
	require.Contains(t, w.Body.String(), "01a214a")
	require.Contains(t, w.Body.String(), "01a214b")
	require.Equal(t, http.StatusNotFound, get(s, "/flows/01a21").Code, "too short to mean one")

	for q, want := range map[string]string{"01a213": "/flower/flows/01a213b2", "01a214": "/flower/flows?q=01a214", "503 away": "/flower/flows?q=503+away", "": "/flower/flows"} {
		w = get(s, "/search?q="+url.QueryEscape(q))
		require.Equal(t, http.StatusSeeOther, w.Code)
		require.Equal(t, want, w.Header().Get("Location"))
	}
	for _, path := range []string{"/flows/%ff", "/flows/a%00b", "/flows/" + strings.Repeat("x", 257), "/flows/x/tasks/zero/log", "/flows/x/tasks/0/skip", "/flows/x/tasks/99999999999/log.txt"} {
		require.Equal(t, http.StatusNotFound, get(s, path).Code, path)
	}
	require.Equal(t, http.StatusBadRequest, get(s, "/search?q=%00").Code)
	require.Equal(t, http.StatusBadRequest, get(s, "/search?q=%ff").Code)
}

// Whoever is no browser gets what the API answers.
func TestProblemsForPrograms(t *testing.T) {
	t.Parallel()
	store := &fakeStore{find: func(string) []flow.ID { return []flow.ID{"01a214a", "01a214b"} }}
	s := newSite(t, Config{}, store)
	for path, want := range map[string]string{
		"/nothing":                `"code":"no-such-path"`,
		"/flows/01a214":           `"candidates":["01a214a","01a214b"]`,
		"/flows/x/tasks/1/log":    `"code":"flow-not-found"`,
		"/workflows/x/register":   `"code":"workflow-not-found"`,
		"/flows/x/tasks/zero/log": `"code":"task-not-found"`,
	} {
		w := get(s, path, "Accept", "*/*")
		require.Equal(t, http.StatusNotFound, w.Code, path)
		require.Equal(t, problem.ContentType, w.Header().Get("Content-Type"), path)
		require.Contains(t, w.Body.String(), want, path)
	}
}
