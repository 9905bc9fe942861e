package access

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// newToken returns a token and its line.
func newToken(t testing.TB, name string, role Role, expires time.Time) (secret, line string) {
	t.Helper()
	secret, line, err := NewToken(name, role, expires)
	require.NoError(t, err)
	return secret, line
}

func open(t testing.TB, cfg Config) *Control {
	t.Helper()
	c, err := Open(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return c
}

func request(t testing.TB, headers ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.RemoteAddr = "192.0.2.1:1234"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func with(t testing.TB, secret string) *http.Request {
	t.Helper()
	return request(t, "Authorization", "Bearer "+secret)
}

func TestControl_SecA2_KnowsWhoComesWithWhat(t *testing.T) {
	t.Parallel()
	cron, cronLine := newToken(t, "cron", Registrar, time.Time{})
	old, oldLine := newToken(t, "cron", Registrar, time.Now().Add(-time.Minute))
	admin, adminLine := newToken(t, "Änne", Admin, time.Now().Add(time.Hour))
	c := open(t, Config{Tokens: cronLine + ";" + oldLine + "\n" + adminLine})
	require.True(t, c.On())

	for name, r := range map[string]*http.Request{
		"a bearer token":                   with(t, cron),
		"as some write it":                 request(t, "authorization", "bearer  "+cron+" "),
		"beside another scheme":            request(t, "Authorization", "Basic eDp5", "Authorization", "Bearer "+cron),
		"a cookie":                         request(t, "Cookie", "flower_token="+cron),
		"a header beats a cookie":          request(t, "Authorization", "Bearer "+cron, "Cookie", "flower_token="+admin),
		"what only a trusted proxy may do": request(t, "Authorization", "Bearer "+cron, "X-Forwarded-User", "root"),
	} {
		p, err := c.Identify(r)
		require.NoError(t, err, name)
		require.Equal(t, Principal{Name: "cron", Role: Registrar}, p, name)
	}
	p, err := c.Identify(with(t, admin))
	require.NoError(t, err)
	require.Equal(t, Principal{Name: "Änne", Role: Admin}, p)

	for name, r := range map[string]*http.Request{
		"nothing":                     request(t),
		"another scheme":              request(t, "Authorization", "Basic eDp5"),
		"an empty cookie":             request(t, "Cookie", "flower_token="),
		"somebody who is not a proxy": request(t, "X-Forwarded-User", "root"),
	} {
		_, err := c.Identify(r)
		require.ErrorIs(t, err, ErrNoToken, name)
	}
	for name, r := range map[string]*http.Request{
		"an unknown one":  with(t, "flower_"+strings.Repeat("A", 43)),
		"an expired one":  with(t, old),
		"half of one":     with(t, cron[:20]),
		"none after all":  request(t, "Authorization", "Bearer"),
		"its hash":        with(t, strings.Fields(cronLine)[2]),
		"a wrong cookie":  request(t, "Cookie", "flower_token=x"),
		"wrong beats not": request(t, "Authorization", "Bearer x", "Cookie", "flower_token="+cron),
	} {
		_, err := c.Identify(r)
		require.ErrorIs(t, err, ErrWrongToken, name)
	}
}

func TestControl_NobodyIsKnown(t *testing.T) {
	t.Parallel()
	c := open(t, Config{Tokens: " \n"})
	require.False(t, c.On())
	c.Reload()
	_, err := Open(Config{Tokens: "cron"}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "FLOWER_TOKENS: line 1")
}

func TestControl_SecA2_TheFileIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	_, line := newToken(t, "cron", Registrar, time.Time{})
	refused := func(problem string) {
		t.Helper()
		_, err := Open(Config{TokensFile: path}, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, problem)
		require.ErrorContains(t, err, "-tokens-file")
		require.NotContains(t, err.Error(), line)
	}
	refused("no such file")
	require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
	open(t, Config{TokensFile: path})
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644, 0o620, 0o602} {
		require.NoError(t, os.Chmod(path, mode))
		refused("chmod 600")
	}
	require.NoError(t, os.Chmod(path, 0o400))
	open(t, Config{TokensFile: path})
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	refused("there is no token in it")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	refused("chmod 600")
}

func TestControl_SecA2_TokensAreReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tokens")
		first, firstLine := newToken(t, "cron", Registrar, time.Time{})
		second, secondLine := newToken(t, "cron", Registrar, time.Time{})
		write := func(lines ...string) {
			require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
			time.Sleep(time.Second)
		}
		write(firstLine)
		c := open(t, Config{TokensFile: path})
		good := func(secret string, want bool) {
			t.Helper()
			_, failed := c.Identify(with(t, secret))
			require.Equal(t, want, failed == nil)
		}
		good(first, true)
		good(second, false)
		write(firstLine, secondLine)
		good(first, true)
		good(second, true)
		write(secondLine)
		good(first, false)
		good(second, true)
		write("broken")
		good(second, true)
	})
}

func TestControl_SecA5_GuessingIsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		good, line := newToken(t, "cron", Registrar, time.Time{})
		other, otherLine := newToken(t, "bob", Reader, time.Time{})
		expired, expiredLine := newToken(t, "eve", Admin, time.Now().Add(-time.Hour))
		c := open(t, Config{Tokens: line + "\n" + otherLine + "\n" + expiredLine})
		_, err := c.Identify(with(t, good))
		require.NoError(t, err)

		start, answers := time.Now(), 0
		for i := range 10_000 {
			before := time.Now()
			secret := "flower_" + strconv.Itoa(i)
			if i%2 == 0 {
				secret = expired
			}
			_, failed := c.Identify(with(t, secret))
			if many, ok := errors.AsType[*TooManyError](failed); ok {
				require.Positive(t, many.Wait)
				require.LessOrEqual(t, many.Wait, guessPause)
				continue
			}
			require.ErrorIs(t, failed, ErrWrongToken)
			require.Equal(t, wrongPause, time.Since(before), "the same time, whatever is wrong")
			answers++
			require.LessOrEqual(t, answers, guessBurst+int(time.Since(start)/guessPause)+1)
		}
		require.GreaterOrEqual(t, answers, guessBurst)

		_, err = c.Identify(with(t, good))
		require.NoError(t, err, "who came in from there before, still does")
		_, err = c.Identify(with(t, other))
		require.ErrorContains(t, err, "too many wrong tokens", "nobody else does, right or wrong")
		elsewhere := with(t, other)
		elsewhere.RemoteAddr = "192.0.2.2:1"
		_, err = c.Identify(elsewhere)
		require.NoError(t, err, "from another address")

		time.Sleep(guessPause)
		_, err = c.Identify(with(t, other))
		require.NoError(t, err, "after a moment, from here as well")
	})
}

// A token that was good and is no more is looked at whatever is owed: it must not be owed
// for without end.
func TestControl_SecA5_AnExpiredTokenLocksNobodyOutForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		soon, soonLine := newToken(t, "cron", Registrar, time.Now().Add(time.Minute))
		other, otherLine := newToken(t, "bob", Reader, time.Time{})
		c := open(t, Config{Tokens: soonLine + "\n" + otherLine})
		_, err := c.Identify(with(t, soon))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		for range 1000 {
			_, err = c.Identify(with(t, soon))
			require.Error(t, err)
		}
		time.Sleep(guessPause)
		_, err = c.Identify(with(t, other))
		require.NoError(t, err)
	})
}

func TestAttempts_RemembersALimitedNumberOfAddresses(t *testing.T) {
	t.Parallel()
	var a attempts
	now := time.Now()
	for i := range 3 * maxAddresses {
		a.wrong(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), [32]byte{}, now)
		require.LessOrEqual(t, len(a.byAddress), maxAddresses)
	}
	last := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	for range guessBurst {
		require.Zero(t, a.wait(last, [32]byte{}, now))
		a.wrong(last, [32]byte{}, now)
	}
	require.Equal(t, guessPause, a.wait(last, [32]byte{}, now))
	require.Equal(t, neighbourhood("2001:db8::1"), neighbourhood("2001:db8::2"))
	require.NotEqual(t, neighbourhood("2001:db8::1"), neighbourhood("2001:db8:0:1::1"))
	require.Equal(t, neighbourhood("::ffff:192.0.2.1"), neighbourhood("192.0.2.1"))
}

func TestControl_TrustedProxy(t *testing.T) {
	t.Parallel()
	_, line := newToken(t, "cron", Registrar, time.Time{})
	proxies := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::/64")}
	plain := open(t, Config{Proxy: Proxy{Trusted: proxies, Role: Reader}})
	roles := open(t, Config{Tokens: line, Proxy: Proxy{Trusted: proxies, Role: Reader, RoleHeader: "X-Forwarded-Role"}})
	require.True(t, plain.On())

	for _, c := range []struct {
		control *Control
		from    string
		headers []string
		want    Principal
		err     error
	}{
		{plain, "192.0.2.1:1", []string{"X-Forwarded-User", "bob"}, Principal{Name: "bob", Role: Reader}, nil},
		{plain, "[2001:db8::7]:1", []string{"X-Forwarded-User", "bob"}, Principal{Name: "bob", Role: Reader}, nil},
		{plain, "[::ffff:192.0.2.1]:1", []string{"X-Forwarded-User", "bob"}, Principal{Name: "bob", Role: Reader}, nil},
		{plain, "192.0.2.1:1", []string{"X-Forwarded-User", "bob", "X-Forwarded-Role", "admin"}, Principal{Name: "bob", Role: Reader}, nil},
		{plain, "192.0.2.16:1", []string{"X-Forwarded-User", "bob"}, Principal{}, ErrNoToken},
		{plain, "192.0.2.16:1", []string{"X-Forwarded-User", "bob", "X-Forwarded-For", "192.0.2.1"}, Principal{}, ErrNoToken},
		{plain, "192.0.2.1:1", nil, Principal{}, ErrNoToken},
		{plain, "192.0.2.1:1", []string{"X-Forwarded-User", ""}, Principal{}, ErrNoToken},
		{plain, "192.0.2.1:1", []string{"X-Forwarded-User", "bob", "X-Forwarded-User", "root"}, Principal{}, ErrWrongUser},
		{plain, "192.0.2.1:1", []string{"X-Forwarded-User", "a\u2028b"}, Principal{}, ErrWrongUser},
		{plain, "192.0.2.1:1", []string{"X-Forwarded-User", "Alice Smith"}, Principal{}, ErrWrongUser},
		{roles, "192.0.2.1:1", []string{"X-Forwarded-User", "bob", "X-Forwarded-Role", "operator"}, Principal{Name: "bob", Role: Operator}, nil},
		{roles, "192.0.2.1:1", []string{"X-Forwarded-User", "bob"}, Principal{Name: "bob", Role: Reader}, nil},
		{roles, "192.0.2.1:1", []string{"X-Forwarded-User", "bob", "X-Forwarded-Role", "root"}, Principal{Name: "bob"}, nil},
		{roles, "192.0.2.1:1", []string{"X-Forwarded-User", "bob", "X-Forwarded-Role", "reader", "X-Forwarded-Role", "admin"}, Principal{Name: "bob"}, nil},
		{roles, "192.0.2.16:1", []string{"X-Forwarded-User", "bob", "X-Forwarded-Role", "admin"}, Principal{}, ErrNoToken},
	} {
		r := request(t, c.headers...)
		r.RemoteAddr = c.from
		p, err := c.control.Identify(r)
		require.ErrorIs(t, err, c.err, "%s %v", c.from, c.headers)
		require.Equal(t, c.want, p, "%s %v", c.from, c.headers)
	}
}

func TestControl_Client(t *testing.T) {
	t.Parallel()
	c := open(t, Config{Proxy: Proxy{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}}})
	for _, x := range []struct{ peer, forwarded, want string }{
		{"192.0.2.1:1", "", "192.0.2.1"},
		{"192.0.2.1:1", "203.0.113.9", "203.0.113.9"},
		{"192.0.2.1:1", "203.0.113.9:4711", "203.0.113.9"},
		{"192.0.2.1:1", "[2001:db8::1]:4711", "2001:db8::1"},
		{"192.0.2.1:1", "198.51.100.1, 203.0.113.9", "203.0.113.9"},
		{"192.0.2.1:1", "198.51.100.1, 203.0.113.9, 192.0.2.2", "203.0.113.9"},
		{"192.0.2.1:1", "evil, 192.0.2.2", "192.0.2.2"},
		{"192.0.2.1:1", "203.0.113.9, evil", "192.0.2.1"},
		{"203.0.113.5:1", "198.51.100.1", "203.0.113.5"},
		{"@", "198.51.100.1", "@"},
	} {
		r := request(t, "X-Forwarded-For", x.forwarded)
		r.RemoteAddr = x.peer
		require.Equal(t, x.want, c.Client(r), "%+v", x)
	}
}

func TestControl_Login(t *testing.T) {
	t.Parallel()
	secret, line := newToken(t, "bob", Reader, time.Time{})
	proxy := Proxy{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}
	c := open(t, Config{Tokens: line, CookiePath: "/flower", Proxy: proxy})

	none := httptest.NewRecorder()
	require.ErrorIs(t, c.Login(none, request(t), "flower_wrong"), ErrWrongToken)
	require.Empty(t, none.Header().Get("Set-Cookie"))

	for name, x := range map[string]struct {
		change func(*http.Request)
		secure bool
	}{
		"plain":                  {func(*http.Request) {}, false},
		"by TLS":                 {func(r *http.Request) { r.TLS = &tls.ConnectionState{} }, true},
		"by TLS to the proxy":    {func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") }, true},
		"by TLS, somebody says":  {func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https"); r.RemoteAddr = "192.0.2.9:1" }, false},
		"in clear, to the proxy": {func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "http") }, false},
	} {
		w := httptest.NewRecorder()
		r := request(t)
		x.change(r)
		require.NoError(t, c.Login(w, r, secret), name)
		cookie := w.Result().Cookies()[0]
		require.Equal(t, x.secure, cookie.Secure, name)
		require.True(t, cookie.HttpOnly)
		require.Equal(t, http.SameSiteLaxMode, cookie.SameSite)
		require.Equal(t, "/flower", cookie.Path)
		require.Empty(t, cookie.Domain)
		require.Equal(t, 30*24*60*60, cookie.MaxAge)

		back := request(t, "Cookie", cookie.Name+"="+cookie.Value)
		p, err := c.Identify(back)
		require.NoError(t, err)
		require.Equal(t, "bob", p.Name)
	}
	out := httptest.NewRecorder()
	c.Logout(out, request(t))
	require.Contains(t, out.Header().Get("Set-Cookie"), "flower_token=; Path=/flower; Max-Age=0; HttpOnly")
}

func TestRequire(t *testing.T) {
	t.Parallel()
	for have := None; have <= Admin; have++ {
		for need := None; need <= Admin; need++ {
			err := Require(With(t.Context(), Principal{Name: "bob", Role: have}), need)
			require.Equal(t, have >= need, err == nil)
			if err != nil {
				require.ErrorContains(t, err, fmt.Sprintf("needs the role %s", need))
			}
			err = Principal{Name: "bob", Role: have, ReadOnly: true}.Require(need)
			require.Equal(t, have >= need && need <= Reader, err == nil)
		}
	}
	require.Panics(t, func() { Of(t.Context()) })
}

func TestNeeded(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		method, path string
		want         Role
	}{
		{"GET", "/healthz", None},
		{"HEAD", "/readyz", None},
		{"GET", "/login", None},
		{"POST", "/login", None},
		{"POST", "/logout", None},
		{"GET", "/static/app.css", None},
		{"GET", "/", Reader},
		{"HEAD", "/flows/x", Reader},
		{"GET", "/api/v1/flows", Reader},
		{"GET", "/register", Reader},
		{"POST", "/register", Registrar},
		{"POST", "/register/sample", Registrar},
		{"POST", "/api/v1/flows", Registrar},
		{"POST", "/api/v1/flows/", Registrar},
		{"POST", "/api/v1/flows//", Operator},
		{"POST", "/workflows/a%2Fb/register", Registrar},
		{"POST", "/workflows/a/b/register", Operator},
		{"POST", "/workflows//register", Operator},
		{"POST", "/workflows/register", Operator},
		{"POST", "/callback/f/1", None},
		{"GET", "/callback/f/1", Reader},
		{"POST", "/settings", None},
		{"POST", "/api/v1/flows/x/rerun", Operator},
		{"POST", "/api/v1/bulk/rerun", Operator},
		{"POST", "/registerx", Operator},
		{"POST", "/healthz/", Operator},
		{"POST", "/loginx", Operator},
		{"POST", "/static/app.css", Operator},
		{"OPTIONS", "*", Operator},
		{"BREW", "/x", Operator},
		{"PUT", "/api/v1/workflows/x", Admin},
		{"POST", "/api/v1/workflows", Admin},
		{"POST", "/api/v1/workflows/x", Admin},
		{"DELETE", "/anything", Admin},
		{"GET", "/%68ealthz", Reader},
		{"GET", "//healthz", Reader},
		{"GET", "/healthz/../api/v1/flows", Reader},
		{"GET", "", Operator},
	} {
		require.Equal(t, x.want, Needed(x.method, x.path), "%s %s", x.method, x.path)
	}
}

func TestControl_OnWithAFileAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	_, line := newToken(t, "cron", Registrar, time.Time{})
	require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
	require.True(t, open(t, Config{TokensFile: path}).On())
}

// What a header and a cookie cannot both carry is no token, whatever the file has.
func TestControl_OddTokens(t *testing.T) {
	t.Parallel()
	for secret, want := range map[string]bool{
		"aZ09-._~+/=": true, strings.Repeat("x", maxSecret): true, strings.Repeat("x", maxSecret+1): false,
		"a,b": false, "a:b": false, "a@b": false, "a[b": false, "a`b": false, "a{b": false, "ä": false, "": false,
	} {
		sum := sha256.Sum256([]byte(secret))
		c := open(t, Config{Tokens: "bob reader " + hex.EncodeToString(sum[:])})
		_, err := c.Identify(with(t, secret))
		require.Equal(t, want, err == nil, "%q", secret)
	}
}

// When the tokens of many who come from one address are taken away, nobody else is locked
// out for as long as all of them owe together.
func TestControl_SecA5_ManyTokensThatWereGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var secrets, lines []string
		for range 50 {
			secret, line := newToken(t, "cron", Registrar, time.Now().Add(time.Minute))
			secrets, lines = append(secrets, secret), append(lines, line)
		}
		other, otherLine := newToken(t, "bob", Reader, time.Time{})
		c := open(t, Config{Tokens: strings.Join(append(lines, otherLine), "\n")})
		for _, secret := range secrets {
			_, err := c.Identify(with(t, secret))
			require.NoError(t, err)
		}
		time.Sleep(time.Minute)
		for _, secret := range secrets {
			_, err := c.Identify(with(t, secret))
			require.ErrorIs(t, err, ErrWrongToken, "each is looked at once more")
		}
		_, err := c.Identify(with(t, other))
		require.ErrorContains(t, err, "too many wrong tokens")
		time.Sleep(guessPause)
		_, err = c.Identify(with(t, other))
		require.NoError(t, err)
	})
}

// Whoever makes room for many addresses does not get rid of what his own owes.
func TestAttempts_ForgetsWhoOwesNothingFirst(t *testing.T) {
	t.Parallel()
	var a attempts
	now := time.Now()
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range maxAddresses {
		if i%4 == 0 {
			a.wrong(address(i), [32]byte{}, now)
		} else {
			a.right(address(i), [32]byte{}, now)
		}
	}
	a.wrong(netip.AddrFrom4([4]byte{192, 0, 2, 1}), [32]byte{}, now)
	require.Len(t, a.byAddress, maxAddresses/2+1)
	for i := 0; i < maxAddresses; i += 4 {
		require.Contains(t, a.byAddress, address(i))
	}
	// Of a token that was right elsewhere nobody knows here.
	b := attempts{}
	from := address(1)
	b.wrong(from, [32]byte{1}, now)
	b.right(from, [32]byte{2}, now)
	for range 2 * guessBurst {
		b.wrong(from, [32]byte{1}, now)
	}
	require.Zero(t, b.wait(from, [32]byte{2}, now))
	require.Equal(t, guessPause, b.wait(from, [32]byte{3}, now))
}

func TestPrincipal_Names(t *testing.T) {
	t.Parallel()
	bob, nobody := Principal{Name: "bob"}, Principal{Name: "anonymous@127.0.0.1", Anonymous: true}
	require.Equal(t, "bob", bob.Registers(""))
	require.Equal(t, "bob", bob.Registers("bob"))
	require.Equal(t, "bob for alice", bob.Registers("alice"))
	require.Equal(t, "anonymous@127.0.0.1", nobody.Registers(""))
	require.Equal(t, "alice", nobody.Registers("alice"))
	require.Empty(t, bob.Key(""))
	require.Equal(t, "bob\x1fk", bob.Key("k"), "his own")
	require.Equal(t, "k", nobody.Key("k"), "everybody's")
}
