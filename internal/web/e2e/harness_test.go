package e2e

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// What a page may not do is noticed: a check that sees nothing finds nothing.
func TestTabNoticesWhatNoPageMayDo(t *testing.T) {
	t.Parallel()
	startBrowser(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/guarded" {
			w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'")
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<!doctype html><title>t</title><p style="color: red">text</p>
			<img src="http://example.com/x.png"><script>console.error("said so")</script>`))
	}))
	t.Cleanup(s.Close)
	b := (&world{T: t, url: s.URL}).blank()
	b.goTo("/guarded")
	require.Contains(t, b.accessible(false), `html-has-lang html: The <html> element does not have a lang attribute`)
	b.goTo("/")
	eval[bool](b, `setTimeout(() => { throw new Error("thrown") }); true`)
	for _, part := range []string{
		"policy: style-src", "policy: script-src", "policy: img-src", "console: \"said so\"",
		"exception: Uncaught Error: thrown", "a request to another host: http://example.com/x.png",
	} {
		pgtest.Eventually(t, patience, part, func() bool { return b.noticed(part) })
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = nil
}
