package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

func TestKinds(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, k := range Kinds() {
		require.NotEmpty(t, http.StatusText(k.Status), k.Code)
		require.Regexp(t, `^[a-z]+(-[a-z]+)*$`, k.Code)
		require.NotEmpty(t, k.Title)
		id := fmt.Sprint(k.Code, k.Status)
		require.False(t, seen[id], "twice: %s", id)
		seen[id] = true
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	refused := func(code flow.RefusalCode) error {
		return &flow.RefusedError{Refused: []flow.Refusal{{Flow: "a/b", Seq: 3, Code: code, Detail: "task 3 runs"}}}
	}
	for name, c := range map[string]struct {
		ctx    context.Context
		err    error
		kind   Kind
		detail string
	}{
		"known":         {err: InvalidValue.Because("x is %d", 7), kind: InvalidValue, detail: "x is 7"},
		"wrapped":       {err: fmt.Errorf("read: %w", FlowNotFound.Because("none")), kind: FlowNotFound, detail: "none"},
		"no token":      {err: access.ErrNoToken, kind: Unauthenticated, detail: "say who you are"},
		"wrong user":    {err: access.ErrWrongUser, kind: Unauthenticated, detail: "X-Forwarded-User must be one name"},
		"wrong token":   {err: access.ErrWrongToken, kind: Unauthenticated, detail: "not known here"},
		"guessing":      {err: &access.TooManyError{Wait: 2500 * time.Millisecond}, kind: TooManyTokens, detail: "try again in 3s"},
		"role":          {err: &access.RefusedError{Principal: access.Principal{Name: "bob", Role: access.Reader}, Need: access.Operator}, kind: RoleTooLow, detail: "role operator"},
		"read-only":     {err: &access.RefusedError{Principal: access.Principal{ReadOnly: true}, Need: access.Operator}, kind: ReadOnly, detail: "-readonly"},
		"running":       {err: refused(flow.RefusedTaskRunning), kind: TaskRunning, detail: "task 3 runs"},
		"dependant":     {err: refused(flow.RefusedDependantRunning), kind: DependantRunning, detail: "task 3 runs"},
		"wrong status":  {err: refused(flow.RefusedWrongStatus), kind: WrongStatus, detail: "task 3 runs"},
		"no such flow":  {err: refused(flow.RefusedFlowNotFound), kind: FlowNotFound, detail: "task 3 runs"},
		"no such task":  {err: refused(flow.RefusedTaskNotFound), kind: TaskNotFound, detail: "task 3 runs"},
		"plan":          {err: &flow.PlanChangedError{Effect: flow.Effect{Tasks: make([]flow.TaskChange, 2)}}, kind: PlanChanged, detail: "2 would change now"},
		"guard":         {err: &flow.GuardError{Message: "task 1: no", Hint: "Set it to 0."}, kind: WrongStatus, detail: "task 1: no: Set it to 0."},
		"invalid":       {err: &flow.InvalidError{Subject: `workflow "w"`, Problem: "it has no tasks"}, kind: WorkflowBroken, detail: "it has no tasks"},
		"key":           {err: flow.ErrKeyReused, kind: KeyReused, detail: "another key"},
		"exists":        {err: flow.ErrFlowExists, kind: FlowExists, detail: "exists already"},
		"too many":      {err: flow.ErrTooMany, kind: TooMany, detail: "narrow"},
		"away":          {err: fmt.Errorf("x: %w: pq: at 10.1.2.3", flow.ErrUnavailable), kind: NoDatabase, detail: "safe to repeat with the Idempotency-Key"},
		"locked":        {err: fmt.Errorf("x: %w: pq: at 10.1.2.3", flow.ErrLocked), kind: QueryTooSlow, detail: "somebody else is changing the same"},
		"too slow":      {err: fmt.Errorf("x: %w: pq: at 10.1.2.3", flow.ErrTooSlow), kind: QueryTooSlow, detail: "narrower"},
		"out of time":   {ctx: over, err: errors.New("pq: cancelled"), kind: NoDatabase, detail: "within 15s"},
		"anything else": {err: errors.New("pq: at 10.1.2.3"), kind: Internal, detail: "the log has the details"},
	} {
		ctx := c.ctx
		if ctx == nil {
			ctx = context.Background()
		}
		f := Of(ctx, c.err, 15*time.Second)
		require.Equal(t, c.kind.Code, f.Code, name)
		require.Equal(t, c.kind.Status, f.Status, name)
		require.Contains(t, f.Detail, c.detail, name)
		require.NotContains(t, f.Detail, "10.1.2.3", name)
	}
	require.Equal(t, 3, Of(context.Background(), &access.TooManyError{Wait: 2500 * time.Millisecond}, 0).RetryAfter)
	f := Of(context.Background(), refused(flow.RefusedTaskRunning), 0)
	require.Equal(t, []FieldError{{Location: "flows/a%2Fb/tasks/3", Message: "task 3 runs"}}, f.Extra.Errors)
}

type server struct{}

func (server) RequestID() string { return "r1" }
func (server) Fail(w http.ResponseWriter, r *http.Request, err error) {
	Of(r.Context(), err, 0).Write(w, r)
}
func (server) Note(*http.Request, *Failure)    {}
func (server) Answered(context.Context, error) {}

func TestWrite(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/a%2Fb?x=s3cret", nil)
	r = r.WithContext(With(r.Context(), server{}))
	w := httptest.NewRecorder()
	f := NoDatabase.Because("the <database> is away: %s", string(make([]byte, 5000)))
	f.Extra.Candidates = []string{"a"}
	Fail(w, r, f)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, ContentType, w.Header().Get("Content-Type"))
	require.Equal(t, "5", w.Header().Get("Retry-After"))
	var d Document
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &d))
	require.Equal(t, "/a%2Fb", d.Instance)
	require.Equal(t, "r1", d.RequestID)
	require.Equal(t, "about:blank", d.Type)
	require.Equal(t, []string{"a"}, d.Candidates)
	require.Less(t, len(d.Detail), 3000)
	require.Contains(t, w.Body.String(), "<database>")
	require.NotContains(t, w.Body.String(), `"errors"`)
	require.Panics(t, func() { RequestID(context.Background()) })
}
