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
		RegisteredBy: "alice", Note: "why", IdempotencyKey: "page:k",
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
