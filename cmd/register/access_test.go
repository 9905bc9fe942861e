package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// command executes register with its commands.
func command(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var o output
	env := &cli.Env{Name: "register", Args: args, Stdout: &o, Stderr: &o, Getenv: func(string) string { return "" }}
	code = cli.Exec(t.Context(), env, cli.WithCommands(run, commands...))
	return code, o.String()
}

// serving starts register, and returns where it serves and what it has logged. It is
// stopped with the test.
func serving(t *testing.T, vars map[string]string, args ...string) (site string, out *output) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	out = new(output)
	env := &cli.Env{
		Name: "register", Args: append([]string{"-webport", "0", "-log-format", "text"}, args...), Stdout: out, Stderr: out,
		Getenv: func(name string) string { return vars[name] },
	}
	code := make(chan int, 1)
	go func() { code <- cli.Exec(ctx, env, run) }()
	t.Cleanup(func() {
		stop()
		require.Zero(t, <-code, out.String())
	})
	started := regexp.MustCompile(`starting server on address: ([^\s"]+)`)
	pgtest.Eventually(t, time.Minute, "the server listens", func() bool {
		if m := started.FindStringSubmatch(out.String()); m != nil {
			site = "http://" + m[1]
		}
		return site != "" || len(code) > 0
	})
	require.NotEmpty(t, site, out.String())
	return site, out
}

// The cookie with a token is for the pages alone: a proxy may have others on the same host.
func TestRegister_CookieIsForThePagesAlone(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{"": "", "/flower": "/flower"} {
		var cfg config
		env := &cli.Env{Name: "register", Args: []string{"-base-path", base}, Getenv: func(string) string { return "" }}
		require.NoError(t, settings(env, &cfg).Parse(env))
		require.Equal(t, want, cfg.access.CookiePath)
	}
}

// asked sends a request with a token, if it is not empty, and returns the answer's status.
func asked(t *testing.T, method, url, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	require.NoError(t, err)
	r.Close = true
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode
}

func TestToken_LetsItsOwnerIn(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	file := filepath.Join(t.TempDir(), "tokens")
	code, out := command(t, "token", "-name", "cron", "-role", "registrar", "-file", file)
	require.Zero(t, code, out)
	cron := strings.TrimSpace(out)
	code, out = command(t, "token", "-name", "alice", "-until", "2999-12-31", "-file", file)
	require.Zero(t, code, out)
	alice := strings.TrimSpace(out)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	site, log := serving(t, map[string]string{"FLOWER_TOKENS_FILE": file}, "-database-url", db.URL)
	require.Equal(t, http.StatusUnauthorized, asked(t, "POST", site+"/register/sample", ""))
	require.Equal(t, http.StatusForbidden, asked(t, "POST", site+"/register/sample", alice))
	require.Equal(t, http.StatusCreated, asked(t, "POST", site+"/register/sample", cron))
	require.Equal(t, http.StatusOK, asked(t, "GET", site+"/", alice))
	require.Equal(t, http.StatusOK, asked(t, "GET", site+"/healthz", ""))
	var by string
	require.NoError(t, db.GetContext(t.Context(), &by, "SELECT registered_by FROM kr_flow"))
	require.Equal(t, "cron", by)

	// Taken out of the file, it is no longer good; and the other one is.
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), "\n")
	require.NoError(t, os.WriteFile(file, []byte(rest), 0o600))
	pgtest.Eventually(t, time.Minute, "the file is read again", func() bool {
		return asked(t, "POST", site+"/register/sample", cron) == http.StatusUnauthorized
	})
	require.Equal(t, http.StatusOK, asked(t, "GET", site+"/", alice))
	require.NotContains(t, log.String(), cron)
	require.NotContains(t, log.String(), alice)
}

// What else a browser finds at the same host, beside the base path, gets no token of ours.
func TestLogin_ItsCookieIsForTheBasePathAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	secret, line, err := access.NewToken("alice", access.Reader, time.Time{})
	require.NoError(t, err)
	for base, path := range map[string]string{"": "/", "/flower": "/flower"} {
		site, _ := serving(t, map[string]string{"FLOWER_TOKENS": line, "FLOWER_BASE_PATH": base}, "-database-url", db.URL)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, site+base+"/login", strings.NewReader("token="+secret))
		require.NoError(t, err)
		r.Close = true
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := http.DefaultTransport.RoundTrip(r) // which follows no redirect
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusSeeOther, answer.StatusCode)
		require.Len(t, answer.Cookies(), 1)
		require.Equal(t, path, answer.Cookies()[0].Path)
	}
}

func TestToken_IsPrintedOnce(t *testing.T) {
	t.Parallel()
	code, out := command(t, "token", "-name", "cron", "-role", "registrar", "-until", "2999-01-31T12:00:00Z")
	require.Zero(t, code)
	require.Regexp(t, `Authorization: Bearer flower_[\w-]{43}'`, out)
	require.Regexp(t, `(?m)^  cron registrar [0-9a-f]{64} 2999-01-31T12:00:00Z$`, out)

	open := filepath.Join(t.TempDir(), "open")
	require.NoError(t, os.WriteFile(open, []byte("cron"), 0o644)) //nolint:gosec // that is the point
	for _, args := range [][]string{
		{},
		{"-name", "a b"},
		{"-name", "cron", "-role", "root"},
		{"-name", "cron", "-until", "soon"},
	} {
		code, out = command(t, append([]string{"token"}, args...)...)
		require.Equal(t, cli.ExitUsage, code, out)
		require.NotContains(t, out, "flower_")
	}
	file := filepath.Join(t.TempDir(), "tokens")
	yesterday := time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	for _, until := range []string{yesterday, "2020-01-31T12:00:00Z", "2020-01-31T12:00:00+09:00"} {
		code, out = command(t, "token", "-name", "cron", "-until", until, "-file", file)
		require.Equal(t, cli.ExitUsage, code, out)
		require.Contains(t, out, "-until "+until+": that is over")
		require.NotContains(t, out, "flower_")
		require.NoFileExists(t, file)
	}
	code, out = command(t, "token", "-name", "cron", "-file", open)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, out, "chmod 600")
	require.NotContains(t, out, "flower_")
}

func TestRegister_SecA2_BadTokensStopIt(t *testing.T) {
	t.Parallel()
	for vars, problem := range map[[2]string]string{
		{"FLOWER_TOKENS", "cron root x"}:         "FLOWER_TOKENS: line 1: the second word must be a role",
		{"FLOWER_TOKENS_FILE", "/nowhere"}:       `tokens file \"/nowhere\" (-tokens-file, FLOWER_TOKENS_FILE): no such file`,
		{"FLOWER_TRUSTED_PROXY", "example.com"}:  "must be an address or a network",
		{"FLOWER_TRUSTED_PROXY", "10.0.0.0/8/8"}: "must be an address or a network",
		{"FLOWER_PROXY_ROLE", "root"}:            "reader, registrar, operator, admin",
	} {
		code, out := execute(t.Context(), map[string]string{vars[0]: vars[1], "FLOWER_LOG_FORMAT": "text"})
		require.NotZero(t, code)
		require.Contains(t, out.String(), problem)
	}
}
