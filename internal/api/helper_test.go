package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/api"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/program"
	"github.com/d-tsuji/flower/internal/register"
)

func TestMain(m *testing.M) {
	for _, kind := range []string{"text/vnd.graphviz", "text/vnd.mermaid", "text/csv", "application/yaml"} {
		openapi3filter.RegisterBodyDecoder(kind, openapi3filter.PlainBodyDecoder)
	}
	os.Exit(pgtest.Run(m))
}

// world is a register with a real database, as people reach it, and a watcher that has
// joined.
type world struct {
	t       testing.TB
	db      *postgres.DB
	psql    *pgtest.DB
	h       http.Handler
	spec    routers.Router
	watcher string
}

// programs are what the watcher can run.
var programs = []string{"NoOp", "Test1", "Test2", "Test3", "EchoParamTimeSleep"}

func open(t testing.TB) *world {
	t.Helper()
	return openAt(t, "")
}

// openAt opens a world below a base path.
func openAt(t testing.TB, base string) *world {
	t.Helper()
	w := &world{t: t, psql: pgtest.New(t), watcher: uuid.NewString()}
	db, err := postgres.Open(postgres.Config{URL: w.psql.DSN, Application: "flower-test"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	w.db = db
	db.CheckParameters(program.Default(program.Config{}).CheckWorkflow)
	w.h = serving(db, base, nil)
	w.spec = specification(t, w.h)
	require.NoError(t, db.Join(t.Context(), flow.Watcher{ID: w.watcher, Host: "host", PID: 1, Version: "test", Programs: programs, Workers: 5}))
	return w
}

// serving is what cmd/register makes.
func serving(store interface {
	api.Store
	register.Store
}, base string, control *access.Control,
) http.Handler {
	log := slog.New(slog.DiscardHandler)
	a := api.New(api.Config{Version: "test", Programs: []api.Program{{Name: "NoOp", Parameters: []api.Parameter{}}}, Checks: program.Default(program.Config{}), BasePath: base, Access: control}, store, log)
	return register.New(register.Config{Host: "localhost", Port: 8000, BasePath: base, Access: control}, store, log,
		register.Site{Prefix: api.Prefix, Handler: a, Patience: api.Patience}, register.Site{Prefix: "/docs", Handler: a},
		register.Site{Prefix: "/openapi.json", Handler: a}).Handler()
}

// specification is the served document, which itself must be right.
func specification(t testing.TB, h http.Handler) routers.Router {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, newRequest(t, "GET", "/openapi.json", ""))
	require.Equal(t, http.StatusOK, rec.Code)
	doc, err := openapi3.NewLoader().LoadFromData(rec.Body.Bytes())
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	router, err := gorillamux.NewRouter(doc)
	require.NoError(t, err)
	return router
}

// newRequest is one with the headers of curl; further headers come as name, value, ….
func newRequest(t testing.TB, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(t.Context(), method, path, reader)
	r.Host = "localhost:8000"
	r.Header.Set("User-Agent", "curl/8.5.0")
	r.Header.Set("Accept", "*/*")
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// send sends a request and holds the answer to the document.
func (w *world) send(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := newRequest(w.t, method, path, body, headers...)
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, r)
	w.fits(newRequest(w.t, method, path, body, headers...), rec)
	return rec
}

// fits holds an answer to the document.
func (w *world) fits(r *http.Request, rec *httptest.ResponseRecorder) {
	w.t.Helper()
	route, params, err := w.spec.FindRoute(r)
	if err != nil {
		return // it is not the document's
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: rec.Code, Header: rec.Header(), Body: io.NopCloser(bytes.NewReader(rec.Body.Bytes())),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
	require.NoError(w.t, err, "%s %s: %d\n%s", r.Method, r.URL, rec.Code, rec.Body)
}

// get asks for JSON that must be there.
func get[T any](w *world, path string) T {
	w.t.Helper()
	rec := w.send("GET", path, "")
	require.Equal(w.t, http.StatusOK, rec.Code, rec.Body.String())
	require.Equal(w.t, "application/json", rec.Header().Get("Content-Type"))
	return decode[T](w.t, rec.Body.Bytes())
}

// post acts, and must succeed with a status.
func post[T any](w *world, status int, path, body string, headers ...string) T {
	w.t.Helper()
	rec := w.send("POST", path, body, headers...)
	require.Equal(w.t, status, rec.Code, rec.Body.String())
	return decode[T](w.t, rec.Body.Bytes())
}

// decode reads JSON that has nothing unknown in it.
func decode[T any](t testing.TB, text []byte) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&v), "%s", text)
	return v
}

// fails asks for what must fail with a code.
func (w *world) fails(code, method, path, body string, headers ...string) problem.Document {
	w.t.Helper()
	rec := w.send(method, path, body, headers...)
	require.Equal(w.t, problem.ContentType, rec.Header().Get("Content-Type"), "%s %s: %s", method, path, rec.Body)
	p := decode[problem.Document](w.t, rec.Body.Bytes())
	require.Equal(w.t, code, p.Code, "%s %s: %s", method, path, rec.Body)
	require.Equal(w.t, rec.Code, p.Status)
	require.NotEmpty(w.t, p.Detail)
	require.Equal(w.t, rec.Header().Get("X-Request-Id"), p.RequestID)
	return p
}

// define inserts a workflow, a chain of programs, of which each may have a description
// after a colon.
func (w *world) define(id string, tasks ...string) {
	w.t.Helper()
	for i, task := range tasks {
		name, description, _ := strings.Cut(task, ":")
		_, err := w.psql.Exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, description) VALUES ($1, $2, $3, nullif($4, ''))`, id, i+1, name, description)
		require.NoError(w.t, err)
	}
}

// register makes a flow.
func (w *world) register(workflow string) string {
	w.t.Helper()
	return post[api.Registered](w, http.StatusCreated, "/api/v1/flows", `{"taskId": "`+workflow+`"}`).TaskFlowID
}

// run claims up to n tasks and ends each as outcome says.
func (w *world) run(n int, outcome func(t flow.Task) *flow.Result) {
	w.t.Helper()
	ran := 0
	for ran < n {
		adv, err := w.db.Advance(w.t.Context(), nil, flow.Claim{ID: uuid.NewString(), Watcher: w.watcher, Free: n - ran, Programs: programs})
		require.NoError(w.t, err)
		if len(adv.Claimed) == 0 {
			break
		}
		results := make([]*flow.Result, len(adv.Claimed))
		for i, t := range adv.Claimed {
			results[i] = outcome(t)
		}
		_, err = w.db.Advance(w.t.Context(), results, flow.Claim{ID: uuid.NewString(), Watcher: w.watcher, Programs: programs})
		require.NoError(w.t, err)
		ran += len(results)
	}
}

func finished(t flow.Task) *flow.Result { return &flow.Result{Task: t, Outcome: flow.OutcomeFinished} }

func failed(t flow.Task) *flow.Result {
	return &flow.Result{Task: t, Outcome: flow.OutcomeFailed, Error: "POST http://api.example/7: 503\nmore"}
}

// claim leaves a task running.
func (w *world) claim() flow.Task {
	w.t.Helper()
	adv, err := w.db.Advance(w.t.Context(), nil, flow.Claim{ID: uuid.NewString(), Watcher: w.watcher, Free: 1, Programs: programs})
	require.NoError(w.t, err)
	require.Len(w.t, adv.Claimed, 1)
	return adv.Claimed[0]
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	_, err := w.psql.Exec(query, args...)
	require.NoError(w.t, err, query)
}
