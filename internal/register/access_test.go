package register

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// keyring has a token for each role.
type keyring struct {
	control *access.Control
	tokens  map[access.Role]string
	expired string
}

func newKeyring(t testing.TB) keyring {
	t.Helper()
	k := keyring{tokens: map[access.Role]string{}}
	var lines []string
	for role := access.Reader; role <= access.Admin; role++ {
		secret, line, err := access.NewToken("a-"+role.String(), role, time.Time{})
		require.NoError(t, err)
		k.tokens[role], lines = secret, append(lines, line)
	}
	secret, line, err := access.NewToken("an-expired", access.Admin, time.Now().Add(-time.Second))
	require.NoError(t, err)
	k.expired, lines = secret, append(lines, line)
	k.control, err = access.Open(access.Config{Tokens: strings.Join(lines, "\n")}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return k
}

// echoSite answers with who is calling.
func echoSite(prefix string) Site {
	return Site{Prefix: prefix, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := access.Of(r.Context())
		fmt.Fprintf(w, "%s %s %v", p.Name, p.Role, p.Anonymous)
	})}
}

func guarded(cfg Config, store Store) http.Handler {
	return New(cfg, store, slog.New(slog.DiscardHandler), echoSite("/api/v1/"), echoSite("/")).Handler()
}

// matrix has what each route answers to somebody who may.
var matrix = []struct {
	method, path string
	need         access.Role
	status       int
}{
	{"GET", "/healthz", access.None, 200},
	{"GET", "/readyz", access.None, 200},
	{"HEAD", "/healthz", access.None, 200},
	{"GET", "/static/x/app.css", access.None, 200},
	{"GET", "/login", access.None, 200},
	{"POST", "/login", access.None, 200},
	{"POST", "/logout", access.None, 200},
	{"GET", "/", access.Reader, 200},
	{"HEAD", "/", access.Reader, 200},
	{"GET", "/flows", access.Reader, 200},
	{"GET", "/register", access.Reader, 405},
	{"GET", "/api/v1/flows/x", access.Reader, 200},
	{"GET", "/api/v1/flows", access.Reader, 200},
	{"GET", "/api/v1/flows/x/tasks/1/log", access.Reader, 200},
	{"POST", "/register", access.Registrar, 201},
	{"POST", "/register/sample", access.Registrar, 201},
	{"POST", "/register/sample/", access.Registrar, 201},
	{"POST", "/api/v1/flows", access.Registrar, 200},
	{"POST", "/api/v1/flows/x/rerun", access.Operator, 200},
	{"POST", "/api/v1/flows/x/tasks/1/skip", access.Operator, 200},
	{"POST", "/api/v1/bulk/cancel", access.Operator, 200},
	{"PUT", "/api/v1/workflows/x", access.Admin, 200},
	{"DELETE", "/api/v1/workflows/x", access.Admin, 200},
	{"PATCH", "/anything", access.Admin, 200},
}

func TestServer_SecA2_EachRouteForEachCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, eachRouteForEachCaller) // a wrong token takes its time
}

func eachRouteForEachCaller(t *testing.T) {
	k := newKeyring(t)
	h := guarded(Config{Host: "0.0.0.0", Access: k.control, Insecure: true}, fakeStore{}) // which tokens overrule
	body := func(method, path string) string {
		if method == "POST" && path == "/register" {
			return `{"taskId":"sample"}`
		}
		return ""
	}
	for i, route := range matrix {
		ask := func(token string, headers ...string) *httptest.ResponseRecorder {
			r := newRequest(t, route.method, route.path, body(route.method, route.path), headers...)
			r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i+1) // or else it has had too many wrong ones
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			return do(h, r)
		}
		name := route.method + " " + route.path
		for who, w := range map[string]*httptest.ResponseRecorder{
			"none":           ask(""),
			"wrong":          ask("flower_wrong"),
			"expired":        ask(k.expired),
			"a wrong cookie": ask("", "Cookie", "flower_token=x"),
			"another's word": ask("", "X-Forwarded-User", "root", "X-Forwarded-Role", "admin"),
		} {
			if route.need == access.None {
				require.Equal(t, route.status, w.Code, "%s: %s", name, who)
				continue
			}
			require.Equal(t, http.StatusUnauthorized, w.Code, "%s: %s", name, who)
			require.Equal(t, `Bearer realm="flower"`, w.Header().Get("WWW-Authenticate"))
			require.Equal(t, "unauthenticated", codeOf(t, w, route.path))
		}
		for role, token := range k.tokens {
			w := ask(token)
			if role >= route.need {
				require.Equal(t, route.status, w.Code, "%s as %s: %s", name, role, w.Body)
				continue
			}
			require.Equal(t, http.StatusForbidden, w.Code, "%s as %s", name, role)
			require.Contains(t, w.Body.String(), "needs the role "+route.need.String())
			require.Equal(t, "role-too-low", codeOf(t, w, route.path))
		}
	}
}

// codeOf returns the code of a refusal; /register has none.
func codeOf(t *testing.T, w *httptest.ResponseRecorder, path string) string {
	t.Helper()
	if path == "/register" || strings.HasPrefix(path, "/register/") {
		require.Equal(t, "failed", answerOf(t, w).Status)
		if w.Code == http.StatusUnauthorized {
			return "unauthenticated"
		}
		return "role-too-low"
	}
	return problemOf(t, w).Code
}

func TestServer_SecA2_WhoIsCallingIsWrittenDown(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	var got flow.Registration
	var log logBuffer
	h := New(Config{Host: "localhost", Access: k.control}, recording(&got), log.logger(), echoSite("/")).Handler()
	send(t, h, "POST", "/register/sample", "", "Authorization", "Bearer "+k.tokens[access.Registrar])
	require.Equal(t, "a-registrar", got.RegisteredBy)
	w := send(t, h, "GET", "/", "", "Cookie", "flower_token="+k.tokens[access.Operator], "Accept", "text/html")
	require.Equal(t, "a-operator operator false", w.Body.String())
	send(t, h, "POST", "/register", `{"taskId":"sample","registeredBy":"alice"}`, "Authorization", "Bearer "+k.tokens[access.Registrar])
	require.Equal(t, "a-registrar for alice", got.RegisteredBy, "who it is cannot be hidden")

	send(t, h, "POST", "/register/sample?token="+k.tokens[access.Admin], "", "Authorization", "Bearer "+k.expired)
	for role, token := range k.tokens {
		require.NotContains(t, log.String(), token, "no token in the log: %s", role)
	}
	require.NotContains(t, log.String(), k.expired)
}

// Where others can reach it and nobody is known, there is the contract and nothing else.
func TestServer_SecA1_WithoutTokens(t *testing.T) {
	t.Parallel()
	none, err := access.Open(access.Config{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for _, control := range []*access.Control{nil, none} {
		for _, c := range []struct {
			cfg  Config
			open bool
		}{
			{Config{Host: "localhost", Access: control}, true},
			{Config{Host: "0.0.0.0", Access: control}, false},
			{Config{Host: "flower.example.com", Access: control}, false},
			{Config{Host: "0.0.0.0", Access: control, Insecure: true}, true},
		} {
			h := guarded(c.cfg, fakeStore{})
			for _, route := range matrix {
				body := ""
				if route.path == "/register" {
					body = `{"taskId":"sample"}`
				}
				w := send(t, h, route.method, route.path, body)
				contract := isHealth(newRequest(t, "GET", route.path, "")) || isRegister(newRequest(t, "GET", route.path, ""))
				if c.open || contract {
					require.Equal(t, route.status, w.Code, "%s %s %+v: %s", route.method, route.path, c.cfg, w.Body)
					continue
				}
				require.Equal(t, http.StatusForbidden, w.Code, "%s %s", route.method, route.path)
				if route.method != "HEAD" {
					p := problemOf(t, w)
					require.Equal(t, "unauthenticated", p.Code)
					require.Contains(t, p.Detail, "register token -name", "it says how to be let in")
				}
			}
		}
	}
}

func TestServer_ReadOnly(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	for _, cfg := range []Config{
		{Host: "localhost", ReadOnly: true},
		{Host: "0.0.0.0", ReadOnly: true, Insecure: true},
		{Host: "0.0.0.0", ReadOnly: true, Access: k.control},
	} {
		h := guarded(cfg, fakeStore{})
		for _, route := range matrix {
			w := send(t, h, route.method, route.path, "", "Authorization", "Bearer "+k.tokens[access.Admin])
			if route.need <= access.Reader {
				require.NotEqual(t, http.StatusForbidden, w.Code, "%s %s", route.method, route.path)
				continue
			}
			require.Equal(t, http.StatusForbidden, w.Code, "%s %s", route.method, route.path)
			require.Contains(t, w.Body.String(), "-readonly")
			if !strings.HasPrefix(route.path, "/register") {
				require.Equal(t, "read-only", problemOf(t, w).Code)
			}
		}
	}
	w := send(t, guarded(Config{Host: "localhost", ReadOnly: true}, fakeStore{}), "POST", "/callback/f/1?token=x", "")
	require.Equal(t, "read-only", problemOf(t, w).Code)
	// Without tokens on an address that others can reach there is nothing left but health.
	h := guarded(Config{Host: "0.0.0.0", ReadOnly: true}, fakeStore{})
	require.Equal(t, http.StatusForbidden, send(t, h, "POST", "/register/sample", "").Code)
	require.Equal(t, http.StatusOK, send(t, h, "GET", "/healthz", "").Code)
}

func TestServer_TrustedProxy(t *testing.T) {
	t.Parallel()
	control, err := access.Open(access.Config{Proxy: access.Proxy{
		Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, Role: access.Operator,
	}}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	h := guarded(Config{Host: "localhost", Access: control, LoginPage: "/login"}, fakeStore{})
	ask := func(from string, headers ...string) *httptest.ResponseRecorder {
		r := newRequest(t, "GET", "/who", "", headers...)
		r.RemoteAddr = from
		return do(h, r)
	}
	require.Equal(t, "bob operator false", ask("192.0.2.1:9", "X-Forwarded-User", "bob", "X-Forwarded-For", "203.0.113.7").Body.String())
	require.Equal(t, http.StatusUnauthorized, ask("192.0.2.1:9").Code, "a proxy that knows no user is nobody, also on localhost")
	require.Equal(t, http.StatusUnauthorized, ask("192.0.2.2:9", "X-Forwarded-User", "bob").Code)
	require.Equal(t, http.StatusUnauthorized, ask("192.0.2.1:9", "X-Forwarded-User", "").Code)
	// Who signs in with a token would come with the same name again.
	w := ask("192.0.2.1:9", "X-Forwarded-User", "Alice Smith", "Accept", "text/html")
	require.Equal(t, http.StatusUnauthorized, w.Code)
	require.Contains(t, problemOf(t, w).Detail, "X-Forwarded-User must be one name")
}

func TestServer_SecA5_TooManyWrongTokens(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	h := guarded(Config{Host: "localhost", Access: k.control}, fakeStore{})
	for range 50 {
		for _, path := range []string{"/register/sample", "/api/v1/flows"} {
			w := send(t, h, "POST", path, "", "Authorization", "Bearer flower_guess")
			if w.Code == http.StatusUnauthorized {
				continue
			}
			require.Equal(t, http.StatusTooManyRequests, w.Code)
			require.Equal(t, "1", w.Header().Get("Retry-After"))
			if path == "/api/v1/flows" {
				require.Equal(t, "too-many-requests", problemOf(t, w).Code)
				return
			}
		}
	}
	t.Fatal("nobody was stopped")
}

// paths is a Meter that keeps what was counted.
type paths struct {
	noMeter
	counted []string
}

func (p *paths) Request(_, path string, _ int, _ time.Duration) { p.counted = append(p.counted, path) }

func TestServer_BrowsersAreSentToTheLogin(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	meter := &paths{}
	h := guarded(Config{Host: "localhost", Access: k.control, LoginPage: "/login", BasePath: "/flower", Meter: meter}, fakeStore{})
	const html = "text/html,application/xhtml+xml,*/*;q=0.8"
	for _, path := range []string{"/flower/flows?status=failed", "/flows?status=failed"} {
		w := send(t, h, "GET", path, "", "Accept", html)
		require.Equal(t, http.StatusSeeOther, w.Code, path)
		require.Equal(t, "/flower/login?next="+url.QueryEscape("/flows?status=failed"), w.Header().Get("Location"))
		require.Equal(t, "/login", meter.counted[len(meter.counted)-1], "what strangers make up is no route")
	}
	require.Equal(t, http.StatusSeeOther, send(t, h, "GET", "/", "", "Accept", html, "Cookie", "flower_token=gone").Code)
	for name, w := range map[string]*httptest.ResponseRecorder{
		"curl":          send(t, h, "GET", "/flows", "", "Accept", "*/*"),
		"the API":       send(t, h, "GET", "/api/v1/flows", "", "Accept", html),
		"what a button": send(t, h, "POST", "/flows/x/rerun", "", "Accept", html, "HX-Request", "true"),
		"a refresh":     send(t, h, "GET", "/flows", "", "Accept", html, "HX-Request", "true"),
		"the contract":  send(t, h, "POST", "/register/sample", "", "Accept", html),
	} {
		require.Equal(t, http.StatusUnauthorized, w.Code, name)
	}
	for from, next := range map[string]string{
		"http://localhost:8000/flower/flows/a%2Fb?task=3": "/flows/a%2Fb?task=3", "http://evil.example/flows": "/", "": "/", "%": "/",
	} {
		w := send(t, h, "POST", "/flower/flows/x/hold", "", "Accept", html, "Referer", from)
		require.Equal(t, http.StatusSeeOther, w.Code, from)
		require.Equal(t, "/flower/login?next="+url.QueryEscape(next), w.Header().Get("Location"), from)
	}
	w := send(t, h, "POST", "/flows/x/rerun", "", "Accept", html, "Cookie", "flower_token="+k.tokens[access.Reader])
	require.Equal(t, http.StatusForbidden, w.Code, "who is known and may not is not asked who it is")
}

// Whoever is known and may not is told so in the form in which it has asked: in a page only
// where a page's form was sent without a script.
func TestServer_APageSaysWhoMayNot(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	pages := echoSite("/")
	pages.Refuse = func(w http.ResponseWriter, r *http.Request, err error) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "a page for %s: %v", access.Of(r.Context()).Name, err)
	}
	h := New(Config{Host: "localhost", Access: k.control, LoginPage: "/login"}, fakeStore{}, slog.New(slog.DiscardHandler), echoSite("/api/v1/"), pages).Handler()
	const html = "text/html,application/xhtml+xml,*/*;q=0.8"
	reader := "Bearer " + k.tokens[access.Reader]
	w := send(t, h, "POST", "/flows/x/rerun", "", "Accept", html, "Authorization", reader)
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Regexp(t, `^a page for \S+: this needs the role operator`, w.Body.String())
	for name, w := range map[string]*httptest.ResponseRecorder{
		"curl":          send(t, h, "POST", "/flows/x/rerun", "", "Accept", "*/*", "Authorization", reader),
		"the API":       send(t, h, "POST", "/api/v1/flows/x/rerun", "", "Accept", html, "Authorization", reader),
		"what a button": send(t, h, "POST", "/flows/x/rerun", "", "Accept", html, "HX-Request", "true", "Authorization", reader),
		"the contract":  send(t, h, "POST", "/register/sample", "", "Accept", html, "Authorization", reader),
	} {
		require.Equal(t, http.StatusForbidden, w.Code, name)
		require.Contains(t, w.Header().Get("Content-Type"), "json", name)
	}
}

func TestServer_BasePath(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	h := guarded(Config{Host: "localhost", Access: k.control, BasePath: "/flower"}, fakeStore{})
	for path, want := range map[string]int{
		"/flower":                 http.StatusSeeOther,
		"/flower/healthz":         http.StatusOK,
		"/healthz":                http.StatusOK,
		"/flower/register/sample": http.StatusUnauthorized,
		"/flowers":                http.StatusUnauthorized,
		"/flower/flows":           http.StatusUnauthorized,
		"/%66lower/healthz":       http.StatusUnauthorized,
		"/flower%2fhealthz":       http.StatusUnauthorized,
		"/flower/login":           http.StatusOK,
	} {
		require.Equal(t, want, send(t, h, "GET", path, "").Code, path)
	}
	w := send(t, h, "POST", "/flower/register/a%2Fb", "", "Authorization", "Bearer "+k.tokens[access.Registrar])
	require.Equal(t, http.StatusCreated, w.Code)
	answer := answerOf(t, w)
	require.Equal(t, "a/b", answer.TaskID)
	require.Equal(t, "/flower/api/v1/flows/"+answer.TaskFlowID, w.Header().Get("Location"))

	for _, path := range []string{"flower", "/", "/flower/", "/a//b", "/a/../b", "/a?b", "/a b", "//evil.example", "/register", "/api/flower"} {
		require.Error(t, Config{BasePath: path}.Validate(), path)
	}
	require.NoError(t, Config{BasePath: "/tools/flower"}.Validate())
}

// A path of the API, of the pages or of this room that is added is no base path either.
func TestConfig_KnowsAllPathsOfItsOwn(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for name, path := range map[string]string{"../api/openapi.json": `"/([a-z.]+)[/"]`, "../web/site.go": `route\("/([a-z.]+)`, "server.go": `"/([a-z.]+)[/"]`} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(path).FindAllStringSubmatch(string(text), -1) {
			found[match[1]] = true
		}
	}
	require.Subset(t, ownPaths, slices.Collect(maps.Keys(found)))
	require.Greater(t, len(found), 15)
}

func TestServer_ReadyzTellsStrangersNoNames(t *testing.T) {
	t.Parallel()
	store := fakeStore{checked: func() (flow.Check, error) {
		return flow.Check{Done: true, Broken: []flow.BrokenRule{{Rule: "queue", Rows: 1, Key: flow.TaskKey{Flow: "secret-flow", Seq: 1}}}}, nil
	}}
	k := newKeyring(t)
	w := send(t, guarded(Config{Host: "localhost", Access: k.control}, store), "GET", "/readyz", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.NotContains(t, w.Body.String(), "secret-flow")
	w = send(t, guarded(Config{Host: "localhost"}, store), "GET", "/readyz", "")
	require.Contains(t, w.Body.String(), "secret-flow")
}

// An idempotency key belongs to whoever used it.
func TestServer_SecN2_KeysBelongToTheirCaller(t *testing.T) {
	t.Parallel()
	k := newKeyring(t)
	var got flow.Registration
	keys := map[string]bool{}
	for _, h := range []http.Handler{
		guarded(Config{Host: "localhost", Access: k.control}, recording(&got)),
		guarded(Config{Host: "localhost"}, recording(&got)),
	} {
		for _, role := range []access.Role{access.Registrar, access.Operator} {
			for range 2 {
				send(t, h, "POST", "/register/sample", "", "Idempotency-Key", "k", "Authorization", "Bearer "+k.tokens[role])
				keys[got.IdempotencyKey] = true
			}
			got = flow.Registration{}
			w := send(t, h, "POST", "/register/sample", "", "Idempotency-Key", "a-registrar\x1fk", "Authorization", "Bearer "+k.tokens[role])
			require.Equal(t, http.StatusBadRequest, w.Code, "nobody can write another one's key")
			require.Empty(t, got.IdempotencyKey)
		}
	}
	require.Len(t, keys, 3, "of two callers, and of nobody in particular: %v", keys)
	require.True(t, keys["k"])
}
