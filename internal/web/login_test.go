package web

import (
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// guarded is a site at which alice has a token.
func guarded(t *testing.T) (s *Site, secret string) {
	t.Helper()
	secret, line, err := access.NewToken("alice", access.Operator, time.Time{})
	require.NoError(t, err)
	control, err := access.Open(access.Config{Tokens: line, CookiePath: "/flower"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	store := fullStore("plain")
	store.attention = flow.Attention{NoWatcher: true, CanGo: flow.Count{N: 7}}
	return newSite(t, Config{BasePath: "/flower", Access: control}, store), secret
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s, secret := guarded(t)
	page := ask(s, access.None, http.MethodGet, "/login?next="+url.QueryEscape("/flows/a%2Fb?task=3"), nil)
	require.Equal(t, http.StatusOK, page.Code)
	require.Contains(t, page.Body.String(), `name="next" value="/flows/a%2Fb?task=3"`)
	require.NotContains(t, page.Body.String(), "No watcher", "who is nobody is told nothing")

	wrong := ask(s, access.None, http.MethodPost, "/login", url.Values{"token": {"flower_wrong"}, "next": {"/flows"}})
	require.Equal(t, http.StatusForbidden, wrong.Code)
	require.Empty(t, wrong.Result().Cookies())
	require.Contains(t, wrong.Body.String(), "not known here")
	require.NotContains(t, wrong.Body.String(), "flower_wrong")

	for next, want := range map[string]string{"/flows?q=1": "/flower/flows?q=1", "//evil.example": "/flower/", "": "/flower/"} {
		right := ask(s, access.None, http.MethodPost, "/login", url.Values{"token": {secret}, "next": {next}})
		require.Equal(t, http.StatusSeeOther, right.Code)
		require.Equal(t, want, right.Header().Get("Location"))
		require.Len(t, right.Result().Cookies(), 1)
		require.True(t, right.Result().Cookies()[0].HttpOnly)
	}
	out := ask(s, access.Operator, http.MethodPost, "/logout", url.Values{})
	require.Equal(t, "/flower/login", out.Header().Get("Location"))
	require.Negative(t, out.Result().Cookies()[0].MaxAge)
}

// Without tokens nobody need sign in.
func TestLoginOpen(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{}, &fakeStore{})
	require.Contains(t, get(s, "/login").Body.String(), "There are no tokens here")
	require.Equal(t, "/", ask(s, access.Admin, http.MethodPost, "/login", url.Values{"token": {"x"}}).Header().Get("Location"))
}
