package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/reload"
)

// Config says who is known. The zero value knows nobody.
type Config struct {
	TokensFile string // -tokens-file; see ParseTokens
	Tokens     string // what such a file has, in the environment; lines, or ; between them
	Proxy      Proxy
	CookiePath string // where the pages are; / if empty
}

// Why a request does not say who is calling. Whoever comes with a wrong token is not told
// what is wrong with it.
var (
	ErrNoToken    = errors.New("no token")
	ErrWrongToken = errors.New("wrong token")
	ErrWrongUser  = fmt.Errorf("the proxy's X-Forwarded-User must be one name of 1 to %d printable characters, without blanks and #", maxName)
)

// TooManyError: from this address came too many wrong tokens.
type TooManyError struct{ Wait time.Duration }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("too many wrong tokens came from this address; try again in %s", e.Wait.Round(time.Second))
}

// Control knows who may come in. Nil is not On, and trusts no proxy.
type Control struct {
	cfg   Config
	fixed []Token
	file  *reload.Files[[]Token] // nil without one

	mu       sync.Mutex
	attempts attempts // guarded by mu
}

// Open reads the tokens.
func Open(cfg Config, log *slog.Logger) (*Control, error) {
	c := &Control{cfg: cfg}
	if strings.TrimSpace(cfg.Tokens) != "" {
		var err error
		if c.fixed, err = ParseTokens(strings.ReplaceAll(cfg.Tokens, ";", "\n")); err != nil {
			return nil, fmt.Errorf("FLOWER_TOKENS: %w", err)
		}
	}
	if cfg.TokensFile != "" {
		read := func() ([]Token, error) { return readTokens(cfg.TokensFile) }
		var err error
		if c.file, err = reload.Open([]string{cfg.TokensFile}, read, log); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func readTokens(path string) ([]Token, error) {
	wrap := func(err error) ([]Token, error) {
		return nil, fmt.Errorf("tokens file %q (-tokens-file, FLOWER_TOKENS_FILE): %w", path, err)
	}
	file, err := os.Open(path)
	if err != nil {
		return wrap(unnamed(err))
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return wrap(unnamed(err))
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return wrap(fmt.Errorf("others can use it (%s); chmod 600 it, and think of new tokens if others could write to it", mode))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return wrap(unnamed(err))
	}
	tokens, err := ParseTokens(string(text))
	if err != nil {
		return wrap(err)
	}
	return tokens, nil
}

// unnamed returns what is wrong with a file, without its name.
func unnamed(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err
	}
	return err
}

// On reports whether callers must say who they are.
func (c *Control) On() bool {
	return c != nil && (len(c.fixed) > 0 || c.file != nil || len(c.cfg.Proxy.Trusted) > 0)
}

// Reload reads the tokens file again, at once.
func (c *Control) Reload() {
	if c.file != nil {
		c.file.Reload()
	}
}

// Client returns the address that a request comes from.
func (c *Control) Client(r *http.Request) string { return c.proxy().client(r) }

// Encrypted reports whether a request came by TLS, from its client to whoever ends that.
func (c *Control) Encrypted(r *http.Request) bool { return c.proxy().encrypted(r) }

func (c *Control) proxy() Proxy {
	if c == nil {
		return Proxy{}
	}
	return c.cfg.Proxy
}

// Identify says who is calling: by a bearer token, else by a trusted proxy's word, else by
// the cookie. Errors are ErrNoToken, ErrWrongToken, which takes a moment, ErrWrongUser, and
// *TooManyError.
func (c *Control) Identify(r *http.Request) (Principal, error) {
	if secret, ok := bearer(r); ok {
		return c.find(r, secret)
	}
	user, ok, err := c.cfg.Proxy.user(r)
	if ok || err != nil {
		return user, err
	}
	if cookie, err := r.Cookie(cookieName); err == nil && cookie.Value != "" {
		return c.find(r, cookie.Value)
	}
	return Principal{}, ErrNoToken
}

// bearer returns the token in a request's header. Other schemes are not ours: a proxy that
// knows its users by them may pass them on.
func bearer(r *http.Request) (string, bool) {
	for _, value := range r.Header.Values("Authorization") {
		scheme, secret, _ := strings.Cut(value, " ")
		if strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(secret), true
		}
	}
	return "", false
}

// find returns whose a token is. Every wrong one costs the same time, whatever is wrong
// with it, and there is a limit of how many an address can try.
func (c *Control) find(r *http.Request, secret string) (Principal, error) {
	start := time.Now()
	from, sum := neighbourhood(c.Client(r)), sha256.Sum256([]byte(secret))
	tokens := c.tokens()

	c.mu.Lock()
	if wait := c.attempts.wait(from, sum, start); wait > 0 {
		c.mu.Unlock()
		return Principal{}, &TooManyError{wait}
	}
	t, ok := match(tokens, sum, start)
	ok = ok && wellFormed(secret)
	if ok {
		c.attempts.right(from, sum, start)
	} else {
		c.attempts.wrong(from, sum, start)
	}
	c.mu.Unlock()

	if !ok {
		pause(r.Context(), wrongPause-time.Since(start))
		return Principal{}, ErrWrongToken
	}
	return Principal{Name: t.Name, Role: t.Role}, nil
}

// match compares with every token, so that the time tells nothing.
func match(tokens []Token, sum [sha256.Size]byte, now time.Time) (found Token, ok bool) {
	for _, t := range tokens {
		same := subtle.ConstantTimeCompare(t.Sum[:], sum[:]) == 1
		if same && (t.Expires.IsZero() || now.Before(t.Expires)) && t.Role >= found.Role {
			found, ok = t, true
		}
	}
	return found, ok
}

func (c *Control) tokens() []Token {
	if c.file == nil {
		return c.fixed
	}
	return slices.Concat(c.file.Get(), c.fixed)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
