package web

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

func TestRegisterForm(t *testing.T) {
	t.Parallel()
	var asked flow.Registration
	store := fullStore("plain")
	store.register = func(r flow.Registration) (flow.Flow, error) {
		asked = r
		return flow.Flow{ID: "a/b"}, nil
	}
	s := newSite(t, Config{BasePath: "/flower"}, store)
	form := url.Values{"parameters": {` {"day": "Monday", "n": 12345678901234567890} `}, "priority": {"-3"}, "note": {" why "}, "key": {"k"}}
	w := ask(s, access.Registrar, http.MethodPost, "/workflows/night%2Fly/register", form)
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, "/flower/flows/a%2Fb", w.Header().Get("Location"))
	priority := -3
	require.NotEmpty(t, asked.FlowID)
	require.NotEmpty(t, asked.Fingerprint)
	asked.FlowID, asked.Fingerprint = "", ""
	require.Equal(t, flow.Registration{
		WorkflowID: "night/ly", Parameters: []byte(`{"day":"Monday","n":12345678901234567890}`), Priority: &priority,
		RegisteredBy: "alice", Note: "why", IdempotencyKey: "k",
	}, asked)

	// The least that it takes.
	w = ask(s, access.Registrar, http.MethodPost, "/workflows/nightly/register", url.Values{})
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Nil(t, asked.Parameters)
	require.Nil(t, asked.Priority)
	require.Empty(t, asked.IdempotencyKey)
}

// What cannot be registered comes back as it was typed.
func TestRegisterRefused(t *testing.T) {
	t.Parallel()
	store := fullStore("plain")
	s := newSite(t, Config{}, store)
	for name, form := range map[string]url.Values{
		"by the database": {"parameters": {`{"a": 1}`}},
		"parameters":      {"parameters": {`{"a": `}},
		"priority":        {"priority": {"20"}},
		"no number":       {"priority": {"high"}},
		"no secret":       {"parameters": {`{"token": "***"}`}},
		"nor in a field":  {"p.token": {"***"}},
	} {
		form.Set("note", "my note")
		w := ask(s, access.Admin, http.MethodPost, "/workflows/plain/register", form)
		require.Equal(t, http.StatusUnprocessableEntity, w.Code, name)
		require.Contains(t, w.Body.String(), "my note", name)
		require.Contains(t, w.Body.String(), `role="alert"`, name)
	}
	store.workflow = nil
	require.Equal(t, http.StatusNotFound, get(s, "/workflows/none/register").Code)
}

// A definition that names parameters of the request has a field for each.
func TestRegisterInputs(t *testing.T) {
	t.Parallel()
	store := fullStore("plain")
	store.workflow = func(id flow.WorkflowID) (flow.WorkflowState, error) {
		return flow.WorkflowState{Workflow: flow.Workflow{ID: id, Tasks: []flow.TaskDefinition{
			{Seq: 2, Program: "SQL", Parameters: []byte(`{"args": ["${{ params.day }}", "${{ params[\"a b\"] }}"]}`)},
			{Seq: 1, Program: "Ask", Parameters: []byte(`{"url": "http://x/${{ params.day + params.day }}"}`), RunIf: "params.items > 100 && xparams.no"},
		}}}, nil
	}
	base := store.flow
	store.flow = func(id flow.ID) (flow.State, error) {
		s, err := base(id)
		s.Parameters = []byte(`{"day": "Monday", "items": 7, "other": [1]}`)
		return s, err
	}
	s := newSite(t, Config{}, store)
	w, err := s.store.Workflow(t.Context(), "shop", 0)
	require.NoError(t, err)
	w.Tasks[0], w.Tasks[1] = w.Tasks[1], w.Tasks[0]
	require.Equal(t, []inputView{{"day", "1 Ask, 2 SQL", ""}, {"items", "1 Ask", ""}, {"a b", "2 SQL", ""}}, inputs(w.Tasks))

	page := get(s, "/workflows/shop/register?flow=f").Body.String()
	require.Contains(t, page, `name="p.day" value="Monday"`)
	require.Contains(t, page, `name="p.items" value="7"`)
	require.Contains(t, page, `name="p.a b" value=""`)
	require.Contains(t, page, "&#34;other&#34;: [")

	var asked flow.Registration
	store.register = func(r flow.Registration) (flow.Flow, error) {
		asked = r
		return flow.Flow{ID: "f"}, nil
	}
	ask(s, access.Admin, http.MethodPost, "/workflows/shop/register", url.Values{
		"parameters": {`{"day": "Sunday", "x": 1}`}, "p.day": {"Tuesday"}, "p.items": {" 12 "}, "p.a b": {""},
	})
	require.JSONEq(t, `{"day": "Tuesday", "items": 12, "x": 1}`, string(asked.Parameters))
}
