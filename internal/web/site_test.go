package web

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// fakeStore answers what a test has put into it; by default there is nothing.
type fakeStore struct {
	Store // calls that no test expects panic

	flow      func(flow.ID) (flow.State, error)
	act       func(flow.Action) (flow.Effect, error)
	register  func(flow.Registration) (flow.Flow, error)
	find      func(string) []flow.ID
	log       func(flow.LogFilter) (flow.LogPage, error)
	workflow  func(flow.WorkflowID) (flow.WorkflowState, error)
	attempts  []flow.Attempt
	events    []flow.Event
	flows     []flow.Summary
	watchers  []flow.WatcherState
	attention flow.Attention
	lists     fakeLists
}

func (f *fakeStore) Flow(_ context.Context, id flow.ID) (flow.State, error) {
	if f.flow == nil {
		return flow.State{}, flow.ErrNotFound
	}
	return f.flow(id)
}

func (f *fakeStore) Task(ctx context.Context, key flow.TaskKey) (flow.State, error) {
	s, err := f.Flow(ctx, key.Flow)
	for _, t := range s.Tasks {
		if t.Seq == key.Seq {
			s.Tasks = []flow.TaskState{t}
			return s, nil
		}
	}
	return s, cmp.Or(err, flow.ErrNoTask)
}

func (f *fakeStore) Act(_ context.Context, a flow.Action) (flow.Effect, error) { return f.act(a) }

func (f *fakeStore) Register(_ context.Context, r flow.Registration) (flow.Flow, error) {
	return f.register(r)
}

func (f *fakeStore) FindFlow(_ context.Context, prefix string, _ int) ([]flow.ID, error) {
	if f.find == nil {
		return nil, nil
	}
	return f.find(prefix), nil
}

func (f *fakeStore) Log(_ context.Context, l flow.LogFilter) (flow.LogPage, error) {
	if f.log == nil {
		return flow.LogPage{}, nil
	}
	return f.log(l)
}

func (f *fakeStore) Workflow(_ context.Context, id flow.WorkflowID, _ int) (flow.WorkflowState, error) {
	if f.workflow == nil {
		return flow.WorkflowState{}, flow.ErrNotFound
	}
	return f.workflow(id)
}

func (f *fakeStore) Attempts(context.Context, flow.TaskKey) ([]flow.Attempt, error) {
	return f.attempts, nil
}

func (f *fakeStore) Events(context.Context, flow.EventFilter) (flow.EventPage, error) {
	return flow.EventPage{Events: f.events}, nil
}

func (f *fakeStore) Watchers(context.Context) ([]flow.WatcherState, error) { return f.watchers, nil }

func (f *fakeStore) Attention(context.Context) (flow.Attention, error)           { return f.attention, nil }
func (f *fakeStore) Superseded(context.Context, flow.ID) ([]flow.Attempt, error) { return nil, nil }

// printed has a site for each path and version: under the race detector, to compress the
// files and to parse the templates takes longer than what most tests do with them.
var printed sync.Map

// newSite is New, but that the files and the templates are shared.
func newSite(t *testing.T, cfg Config, store Store) *Site {
	t.Helper()
	key := [2]string{cfg.BasePath, cfg.Version}
	once, _ := printed.LoadOrStore(key, sync.OnceValue(func() *Site {
		return New(Config{BasePath: key[0], Version: key[1]}, nil, slog.New(slog.DiscardHandler))
	}))
	like := once.(func() *Site)()
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("component", "web")
	return &Site{cfg: cfg, store: store, log: log, files: like.files, pages: like.pages}
}

// sent is a request as a browser sends it, of a form if there is one.
func sent(method, target string, form url.Values, header ...string) *http.Request {
	var r *http.Request
	if form != nil {
		r = httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		r = httptest.NewRequest(method, target, nil)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// outside is the server around the pages.
type outside struct{}

func (outside) RequestID() string                    { return "request-1" }
func (outside) Note(*http.Request, *problem.Failure) {}
func (outside) Answered(context.Context, error)      {}
func (outside) Fail(w http.ResponseWriter, r *http.Request, err error) {
	problem.Of(r.Context(), err, 0).Write(w, r)
}

// handlers are those of the sites that were asked already.
var handlers sync.Map

// serve answers a request by somebody of a role.
func serve(s *Site, role access.Role, r *http.Request) *httptest.ResponseRecorder {
	ctx := problem.With(access.With(r.Context(), access.Principal{Name: "alice", Role: role, Anonymous: true}), outside{})
	if r.Header.Get("Accept") == "" {
		r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	}
	r = r.WithContext(ctx)
	w := httptest.NewRecorder()
	h, ok := handlers.Load(s)
	if !ok {
		h, _ = handlers.LoadOrStore(s, s.Handler())
	}
	h.(http.Handler).ServeHTTP(w, r)
	return w
}

func ask(s *Site, role access.Role, method, target string, form url.Values, header ...string) *httptest.ResponseRecorder {
	return serve(s, role, sent(method, target, form, header...))
}

func get(s *Site, target string, header ...string) *httptest.ResponseRecorder {
	return ask(s, access.Admin, http.MethodGet, target, nil, header...)
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{})
	for _, path := range []string{"/help", "/nothing/here", "/static/x/app.css", "/static/x/none", "/settings"} {
		w := get(s, path)
		require.Equal(t, policy, w.Header().Get("Content-Security-Policy"), path)
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"), path)
		require.Equal(t, "same-origin", w.Header().Get("Referrer-Policy"), path)
	}
	require.Equal(t, http.StatusMethodNotAllowed, get(s, "/settings").Code)
	require.Equal(t, "POST", get(s, "/settings").Header().Get("Allow"))
	require.Equal(t, http.StatusOK, ask(s, access.Reader, http.MethodHead, "/help", nil).Code)
}

// Nothing has changed: the browser keeps what it has. With other settings it is another
// page.
func TestNotModified(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{})
	first := get(s, "/help")
	tag := first.Header().Get("ETag")
	require.Regexp(t, `^W/"[0-9a-f]+"$`, tag)
	require.Equal(t, "private, no-cache", first.Header().Get("Cache-Control"))

	again := get(s, "/help", "If-None-Match", tag)
	require.Equal(t, http.StatusNotModified, again.Code)
	require.Empty(t, again.Body.String())
	require.Equal(t, tag, again.Header().Get("ETag"))

	dark := get(s, "/help", "If-None-Match", tag, "Cookie", "flower_theme=dark")
	require.Equal(t, http.StatusOK, dark.Code)
	require.Contains(t, dark.Body.String(), `data-theme="dark"`)
	require.Contains(t, get(s, "/help", "Cookie", `flower_theme="><script>`).Body.String(), `data-theme="auto"`)
}

func TestStaticFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{})
	for name, made := range s.files.byName {
		f := made()
		path := s.files.url("", name)
		w := get(s, path)
		require.Equal(t, http.StatusOK, w.Code, name)
		require.Equal(t, string(f.plain), w.Body.String(), name)
		require.NotEmpty(t, w.Header().Get("Content-Type"), name)
		require.Contains(t, w.Header().Get("Cache-Control"), "immutable", name)
		if f.zipped != nil {
			require.Equal(t, "gzip", get(s, path, "Accept-Encoding", "br, gzip").Header().Get("Content-Encoding"), name)
			require.Empty(t, get(s, path, "Accept-Encoding", "gzip;q=0").Header().Get("Content-Encoding"), name)
		}
	}
	// Of another build: there, but not for ever.
	require.Equal(t, "no-cache", get(s, "/static/before/app.css").Header().Get("Cache-Control"))
	for _, path := range []string{"/static/x/..%2fsite.go", "/static/x/../../go.mod", "/static/x/app.css/", "/static/x/%00", "/static/app.css"} {
		require.Equal(t, http.StatusNotFound, get(s, path).Code, path)
	}
	require.NotEqual(t, buildID("v1"), buildID("v2"))
}

// What a browser loads once is small: for a list at most 40 KB, for a page with a graph 60
// KB. A log's module is loaded when a log is opened, those that save a graph and copy a
// registration when somebody does so.
func TestBudget(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{})
	all, graph, list := 0, 0, 0
	for name, made := range s.files.byName {
		f := made()
		if !strings.HasSuffix(name, ".js") && !strings.HasSuffix(name, ".css") {
			continue
		}
		size := len(f.plain)
		if f.zipped != nil {
			size = len(f.zipped)
		}
		switch name {
		case "js/log.js", "js/graph-save.js", "js/copy-register.js":
		case "js/list.js":
			list = size
		case "js/graph.js", "js/layout-worker.js", "vendor/dagre-3.1.3.min.js":
			graph += size
		default:
			all += size
		}
	}
	t.Logf("%d bytes, and %d for a graph, %d for a list", all, graph, list)
	require.LessOrEqual(t, all+list, 40<<10)
	require.LessOrEqual(t, all+graph, 60<<10)
}

// What is taken out of our files is comments: no string goes over several lines, in which
// something might look like one.
func TestLean(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a>b,c :is(d){b:c d;/* d */}e{f:g}", string(lean("x.css", []byte("/* one\n   two */\na > b,\nc :is(d) {\n  b: c d; /* d */\n}\n\ne { f: g; }\n"))))
	require.Equal(t, "f(\"//x\");\ng();\n", string(lean("x.js", []byte("/**\n * doc\n */\n// why\n  f(\"//x\"); // y\n  // z\n\n\tg();\n"))))
	require.Equal(t, "  // x\n", string(lean("vendor/x.js", []byte("  // x\n"))))
	walk(must(fs.Sub(static, "static")), func(name string, text []byte) {
		if strings.HasSuffix(name, ".css") {
			for _, said := range regexp.MustCompile(`"[^"\n]*"`).FindAllString(string(text), -1) {
				require.NotRegexp(t, `[{};,>]|: `, said, name)
			}
		}
		if strings.HasPrefix(name, "vendor/") || !strings.HasSuffix(name, ".js") {
			return
		}
		for line := range strings.SplitSeq(string(lean(name, text)), "\n") {
			require.Zero(t, strings.Count(line, "`")%2, "%s: %s", name, line)
			require.NotContains(t, line, " // ", name)
		}
	})
}

// The files of others are as they were published.
func TestVendoredFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{})
	want := map[string]string{
		"vendor/htmx-2.0.11.min.js":         "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
		"vendor/dagre-3.1.3.min.js":         "54a503e346f93ca0bb10abe7999587e037262935687aca45eb4e4b0f64bbb578",
		"vendor/idiomorph-ext-0.8.0.min.js": "5811b9a7eda14878b7dab4378bf60432e1bb6f11fcfb970cc26540642650181e",
	}
	for name, made := range s.files.byName {
		f := made()
		if !strings.HasSuffix(name, ".min.js") {
			continue
		}
		sum := sha256.Sum256(f.plain)
		require.Equal(t, want[name], hex.EncodeToString(sum[:]), "%s is not what this test knows", name)
		delete(want, name)
	}
	require.Empty(t, want)
}

func TestSettings(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{BasePath: "/flower"}, &fakeStore{})
	for back, want := range map[string]string{
		"/flows/a%2Fb?task=3": "/flower/flows/a%2Fb?task=3",
		"":                    "/flower/",
		"//evil.example":      "/flower/",
		"https://evil":        "/flower/",
		`/\evil.example`:      "/flower/",
		"javascript:alert(1)": "/flower/",
		"/a\r\nX: y":          "/flower/",
	} {
		w := ask(s, access.Reader, http.MethodPost, "/settings", url.Values{"theme": {"dark"}, "zone": {"mars"}, "back": {back}})
		require.Equal(t, http.StatusSeeOther, w.Code)
		require.Equal(t, want, w.Header().Get("Location"), back)
		cookies := w.Result().Cookies()
		require.Len(t, cookies, 1)
		require.Equal(t, "flower_theme=dark", cookies[0].Name+"="+cookies[0].Value)
		require.Equal(t, "/flower/", cookies[0].Path)
	}
}

// Behind a proxy every link has the base path. Whether the proxy takes it off requests is
// the server's matter: here it is off.
func TestBasePath(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{BasePath: "/flower"}, &fakeStore{})
	link := regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)
	w := get(s, "/help")
	require.Equal(t, http.StatusOK, w.Code)
	for _, m := range link.FindAllStringSubmatch(w.Body.String(), -1) {
		if m[1] != "" && !strings.HasPrefix(m[1], "#") {
			require.True(t, strings.HasPrefix(m[1], "/flower/"), m[0])
		}
	}
}
