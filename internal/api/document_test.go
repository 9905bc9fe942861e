package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// pretty has a line for each value, so that a change is a line, too.
func pretty(text []byte) []byte {
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		panic(err)
	}
	return append(b.Bytes(), '\n')
}

func stampOf(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return at
}

func newAPI(store Store) *API { return New(Config{}, store, slog.New(slog.DiscardHandler)) }

// openapi.json is the document as it is served, for people who read the repository and for
// generators. Whoever changes the API sees here what that changes for others.
func TestDocument_IsTheCommittedOne(t *testing.T) {
	t.Parallel()
	served := pretty(newAPI(nil).json)
	if *update {
		require.NoError(t, os.WriteFile("openapi.json", served, 0o644))
	}
	committed, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	require.Equal(t, string(committed), string(served), "go test ./internal/api -run Document -update")
}

func TestDocument_HasEveryCode(t *testing.T) {
	t.Parallel()
	schema := newAPI(nil).huma.OpenAPI().Components.Schemas.Map()["Problem"].Properties["code"]
	for _, k := range problem.Kinds() {
		require.Contains(t, schema.Enum, any(k.Code))
		require.Contains(t, schema.Description, k.Code)
	}
	require.Len(t, problem.Kinds(), 41, "a code stays what it is: one may be added here, none taken away")
}

// Whoever reads the document is told what each parameter is.
func TestDocument_DescribesEveryParameter(t *testing.T) {
	t.Parallel()
	n := 0
	for path, item := range newAPI(nil).huma.OpenAPI().Paths {
		for _, o := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete, item.Patch} {
			if o == nil {
				continue
			}
			for _, p := range o.Parameters {
				n++
				require.NotEmpty(t, p.Description, "%s %s: %s", o.OperationID, path, p.Name)
			}
		}
	}
	require.Greater(t, n, 50)
}

// caller is what the server puts around the API.
type caller struct {
	role access.Role
	err  error // what was handed to Fail
}

func (c *caller) RequestID() string { return "request-1" }

func (c *caller) Fail(w http.ResponseWriter, r *http.Request, err error) {
	c.err = err
	problem.Of(r.Context(), err, 0).Write(w, r)
}

func (c *caller) Answered(context.Context, error) {}

func (c *caller) Note(*http.Request, *problem.Failure) {}

func (c *caller) ask(t *testing.T, a *API, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	ctx := problem.With(r.Context(), c)
	ctx = access.With(ctx, access.Principal{Name: "somebody", Role: c.role})
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r.WithContext(ctx))
	return w
}

// What a route needs is asked twice, and both say the same; whoever may less is told which
// role it takes, before anything else.
func TestRoutes_Roles(t *testing.T) {
	t.Parallel()
	a := newAPI(nil) // it is never asked
	require.Greater(t, len(a.routes), 35)
	for _, o := range a.routes {
		path := strings.TrimSuffix(Prefix, "/") + strings.NewReplacer("{taskFlowId}", "x", "{taskExecSeq}", "1", "{taskId}", "w").Replace(o.path)
		require.Equal(t, o.need, access.Needed(o.method, path), o.id)
		body := ""
		switch {
		case strings.HasPrefix(o.path, "/bulk/"):
			body = `{"dryRun": true, "taskFlowIds": ["x"]}`
		case o.id == "register-flow":
			body = `{"taskId": "x"}`
		case o.tag == tagWorkflows && o.method != http.MethodGet:
			body = "{}"
		}
		c := &caller{role: o.need - 1}
		w := c.ask(t, a, o.method, path, body)
		require.Equal(t, http.StatusForbidden, w.Code, "%s: %s", o.id, w.Body)
		require.Contains(t, w.Body.String(), `"code":"role-too-low"`)
		require.Contains(t, w.Body.String(), "needs the role "+o.need.String())
	}
}

// broken is a store that fails.
type broken struct {
	Store
	err error
}

func (b broken) Flows(context.Context, flow.Filter, flow.Position, int) (flow.Page, error) {
	return flow.Page{}, b.err
}

func (b broken) FlowStatus(context.Context, flow.ID) (string, error) { return "", b.err }

// What nobody knows is told to the server, which logs it, and to nobody else.
func TestErrorsOfTheStore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{errors.New("pq: at 10.1.2.3"), http.StatusInternalServerError, "internal"},
		{flow.ErrUnavailable, http.StatusServiceUnavailable, "database-unavailable"},
	} {
		for _, path := range []string{"/api/v1/flows", "/api/v1/flows/x", "/api/v1/flows/abcdef/tasks/1", "/api/v1/flows?format=text"} {
			who := &caller{role: access.Reader}
			w := who.ask(t, newAPI(broken{err: c.err}), "GET", path, "")
			require.Equal(t, c.status, w.Code, path)
			require.Equal(t, problem.ContentType, w.Header().Get("Content-Type"))
			require.Contains(t, w.Body.String(), `"code":"`+c.code+`"`)
			require.NotContains(t, w.Body.String(), "10.1.2.3")
			require.ErrorIs(t, who.err, c.err)
		}
	}
}

// What is wrong is said, and never with the value, which may be a secret.
func TestErrorsRepeatNoValues(t *testing.T) {
	t.Parallel()
	a := newAPI(nil)
	c := &caller{role: access.Admin}
	for path, body := range map[string]string{
		"/api/v1/flows":         `{"taskId": 7, "note": {"x": "canary"}, "canary2": "canary"}`,
		"/api/v1/flows/x/rerun": `{"scope": "canary"}`,
		"/api/v1/bulk/rerun":    `{"expect": "canary", "filter": "canary"}`,
		"/api/v1/flows/x/hold":  `"canary`,
	} {
		w := c.ask(t, a, "POST", path, body)
		require.GreaterOrEqual(t, w.Code, 400)
		require.NotContains(t, w.Body.String(), `canary"`, path)
	}
	w := c.ask(t, a, "GET", "/api/v1/flows?limit=canary&status=canary", "")
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.NotContains(t, w.Body.String(), "canary")
}

func TestCursor(t *testing.T) {
	t.Parallel()
	p := flow.Position{Flow: "ab/c"}
	require.True(t, p.IsZero())
	for _, id := range []flow.ID{"", "0199", "日本/ %"} {
		want := flow.Position{At: stampOf(t, "2026-11-23T03:12:01.123456Z"), Flow: id}
		text := formatCursor(want)
		got, err := parseCursor(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		for i := range text { // a changed or a cut one
			_, err = parseCursor(text[:i] + "_" + text[i+1:])
			if text[i] != '_' {
				require.Error(t, err)
			}
			if i > 0 {
				_, err = parseCursor(text[:i])
				require.Error(t, err)
			}
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("AQAGYR1k34WNMDFhMjEzZDAtMTg3MS03OWRmLWFhYWYtNDVjOWQxMDkwODdlLkvSTA")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseCursor(text)
		if err != nil || text == "" {
			return
		}
		again, err := parseCursor(formatCursor(p))
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}

// one is a store with one definition.
type one struct {
	Store
	w flow.Definition
}

func (o one) Definitions(context.Context, []flow.WorkflowID) (map[flow.WorkflowID]flow.Definition, error) {
	return map[flow.WorkflowID]flow.Definition{o.w.ID: o.w}, nil
}

// Who may not change a definition does not get the secrets that it may have.
func TestDefinition_HidesSecretsFromReaders(t *testing.T) {
	t.Parallel()
	a := newAPI(one{w: flow.Definition{Workflow: flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{
		{Seq: 1, Program: "NoOp", Parameters: json.RawMessage(`{"API_TOKEN": "s3cret", "list": [{"password": "s3cret"}]}`)},
	}}}})
	for role := access.Reader; role <= access.Admin; role++ {
		for _, format := range []string{"json", "yaml"} {
			w := (&caller{role: role}).ask(t, a, "GET", "/api/v1/workflows/w/definition?format="+format, "")
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.Equal(t, role == access.Admin, strings.Contains(w.Body.String(), "s3cret"), "%s: %s", role, w.Body)
		}
	}
}
