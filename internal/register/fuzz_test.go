package register

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
)

// FuzzServer sends requests as they come from a socket through all layers, to a server
// that knows nobody and to one that has tokens, a base path and a proxy: none of them may
// panic or answer 500, and whatever is answered is whole.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /register HTTP/1.1\r\nHost: localhost:8000\r\nContent-Length: 19\r\n\r\n{\"taskId\":\"sample\"}",
		"POST /register/a%2Fb%00/ HTTP/1.1\r\nHost: [::1]:8000\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{}",
		"GET /flower/api/v1/flows/x?format=text HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/plain, */*;q=0.1\r\n\r\n",
		"GET /flower HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nCookie: flower_token=x; flower_token=\"y\"\r\n\r\n",
		"GET /static/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"DELETE /a HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nSec-Fetch-Site: cross-site\r\n\r\n",
		"POST /login HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer flower_x\r\nContent-Length: 8\r\n\r\ntoken=xx",
		"GET /readyz?strict HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-User: bob\r\nX-Forwarded-For: 1.2.3.4, ::1\r\nX-Forwarded-Proto: https\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET http://localhost//register/../healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /callback/f/1?token=x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
		"GET /flower%2f%252e HTTP/1.0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	quiet := slog.New(slog.DiscardHandler)
	secret, line, err := access.NewToken("bob", access.Admin, access.Token{}.Expires)
	require.NoError(f, err)
	known, err := access.Open(access.Config{Tokens: line, Proxy: access.Proxy{
		Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Role: access.Admin, RoleHeader: "X-Forwarded-Role",
	}}, quiet)
	require.NoError(f, err)
	servers := []http.Handler{
		guarded(Config{Host: "localhost"}, fakeStore{}),
		guarded(Config{Host: "0.0.0.0"}, fakeStore{}),
		guarded(Config{Host: "localhost", Access: known, BasePath: "/flower", LoginPage: "/login"}, fakeStore{}),
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for i, h := range servers {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
			if err != nil {
				return // net/http answers 400
			}
			r = r.WithContext(t.Context())
			r.RemoteAddr = "192.0.2.1:1"
			if i == 2 && r.Header.Get("Authorization") != "" { // a wrong one takes its time
				r.Header.Set("Authorization", "Bearer "+secret)
			}
			if i == 2 {
				r.Header.Del("Cookie")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.NotEqual(t, http.StatusInternalServerError, w.Code, "%q", raw)
			require.NotEmpty(t, w.Header().Get("X-Request-Id"))
			require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
			require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
			if location := w.Header().Get("Location"); location != "" {
				require.True(t, strings.HasPrefix(location, "/") && !strings.HasPrefix(location, "//"), location)
			}
			if strings.HasSuffix(w.Header().Get("Content-Type"), "json") && r.Method != http.MethodHead {
				require.True(t, json.Valid(w.Body.Bytes()), "%s", w.Body)
				require.True(t, utf8.Valid(w.Body.Bytes()))
			}
			_, _ = io.Copy(io.Discard, r.Body)
		}
	})
}

// FuzzIdentify has whatever headers say who is calling: an answer or one of the errors,
// and never somebody who is not known.
func FuzzIdentify(f *testing.F) {
	f.Add("Bearer x", "flower_token=x", "bob", "admin", "1.2.3.4", "https", "192.0.2.1:1")
	f.Add("Basic eDp5", "a=b; flower_token=", "a\u2028b", "reader,admin", "[::1]:80, x", "HTTP", "[2001:db8::1%eth0]:9")
	proxies := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	_, line, err := access.NewToken("alice", access.Admin, access.Token{}.Expires)
	require.NoError(f, err)
	c, err := access.Open(access.Config{Tokens: line, Proxy: access.Proxy{
		Trusted: proxies, Role: access.Reader, RoleHeader: "X-Forwarded-Role",
	}}, slog.New(slog.DiscardHandler))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, authorization, cookie, user, role, forwarded, proto, peer string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = peer
		for name, value := range map[string]string{
			"X-Forwarded-User": user, "X-Forwarded-Role": role, "X-Forwarded-For": forwarded, "X-Forwarded-Proto": proto,
		} {
			r.Header.Set(name, value)
		}
		c.Encrypted(r)
		require.NotPanics(t, func() { c.Client(r) })
		trusted := false
		host, _, err := net.SplitHostPort(peer)
		if err != nil {
			host = peer
		}
		if ip, err := netip.ParseAddr(host); err == nil {
			ip = ip.Unmap().WithZone("")
			trusted = proxies[0].Contains(ip) || proxies[1].Contains(ip)
		}
		p, err := c.Identify(r)
		if err == nil {
			require.True(t, trusted, "by somebody else's word: %s", peer)
			require.Equal(t, user, p.Name)
			require.Equal(t, role == p.Role.String() || p.Role == access.None, true)
		}
		if wrong := strings.TrimPrefix(authorization, "Bearer "); len(wrong)%64 == 1 { // each takes its time
			r.Header.Set("Authorization", "Bearer "+wrong)
			r.Header.Set("Cookie", cookie)
			_, err = c.Identify(r)
			require.Error(t, err)
		}
	})
}
