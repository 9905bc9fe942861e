// Package client is register at a terminal: commands that ask a running register, by its
// API, and do nothing that curl could not. What they print for people is the text that the
// API itself makes; scripts take the JSON.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/cli"
)

// settings say which register is asked, and by whom.
type settings struct {
	server, token, tokenFile string
	json                     bool
}

func (s *settings) add(f *cli.Flags) {
	f.Group("Server")
	f.Var(cli.Text(&s.server, "http://localhost:8000"), "server URL", "FLOWER_SERVER", "the register to ask")
	f.Var(cli.Secret(&s.token), "token TOKEN", "FLOWER_TOKEN", "a token of it, if it wants one; a flag can be read by others on this host")
	f.Var(cli.Text(&s.tokenFile, ""), "token-file FILE", "FLOWER_TOKEN_FILE", "a file with the token")
	f.Var(cli.Bool(&s.json), "json", "", "print JSON, for scripts")
	f.Check(func() error {
		if f.Given("token-file") && !f.Given("token") { // a flag beats a variable
			s.token = ""
		}
		return nil
	})
}

// client asks one register.
type client struct {
	base  *url.URL
	token string
	http  *http.Client
}

func (s settings) client() (*client, error) {
	base, err := url.Parse(s.server)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, &cli.UsageError{Problem: fmt.Sprintf("invalid value %q for -server: must be a URL, as in http://localhost:8000", s.server)}
	}
	token := strings.TrimSpace(s.token)
	if token == "" && s.tokenFile != "" {
		text, err := os.ReadFile(s.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
		if token = strings.TrimSpace(string(text)); token == "" {
			return nil, fmt.Errorf("read the token: %s is empty", s.tokenFile)
		}
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("this is no token: it has blanks or odd characters; of what register token prints, flower_… alone is one")
	}
	// No timeout for the whole: an answer may be waited for. Each request has its own. Nor is a
	// redirect followed, which makes a GET of a POST, and an answer of another question's.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{base: base, token: token, http: &http.Client{CheckRedirect: stay}}, nil
}

// request is what is asked of the API.
type request struct {
	method string
	path   []string // after /api/v1, not escaped
	query  url.Values
	body   any // as JSON; nil is none
	key    string
}

// patience is how long an answer may take that nobody waits for on purpose.
const patience = 60 * time.Second

// errSilent is why no answer is waited for any longer: whoever is there takes requests, and
// says nothing.
var errSilent = fmt.Errorf("no answer within %s", patience)

// maxAnswer limits what is read of an answer that is not passed on.
const maxAnswer = 64 << 20

// do sends a request, and returns the answer if it is a good one: else a *refusal.
func (c *client) do(ctx context.Context, r request) (*http.Response, error) {
	body := io.Reader(http.NoBody)
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	segments := []string{"api", "v1"}
	for _, p := range r.path {
		segments = append(segments, url.PathEscape(p))
	}
	target := *c.base
	target.RawPath = strings.TrimSuffix(target.EscapedPath(), "/") + "/" + strings.Join(segments, "/")
	target.Path, _ = url.PathUnescape(target.RawPath) // it was escaped above
	target.RawQuery = r.query.Encode()
	q, err := http.NewRequestWithContext(ctx, r.method, target.String(), body)
	if err != nil {
		return nil, err
	}
	q.Header.Set("User-Agent", "flower-register")
	if r.body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		q.Header.Set("Idempotency-Key", r.key)
	}
	if c.token != "" {
		q.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(q)
	if err != nil {
		return nil, c.unanswered(ctx, err)
	}
	// A page is of another program, or of a proxy that asks who is there.
	if answer.StatusCode >= 300 || strings.HasPrefix(answer.Header.Get("Content-Type"), "text/html") {
		defer func() { _ = answer.Body.Close() }()
		return nil, newRefusal(answer)
	}
	return answer, nil
}

// unanswered says that nobody has answered.
func (c *client) unanswered(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause != nil && !errors.Is(cause, errSilent) {
		return cause
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // it would repeat the whole address
	}
	if cause != nil {
		err = cause
	}
	return &refusal{temporary: true, detail: fmt.Sprintf("no register answers at %s: %v (-server says where it is)", c.base.Redacted(), err)}
}

// refusal is why a request was not answered as it was meant.
type refusal struct {
	status    int // 0: there was no answer at all
	code      string
	detail    string
	temporary bool // to be tried again
}

func (r *refusal) Error() string { return r.detail }

func newRefusal(answer *http.Response) *refusal {
	var p struct {
		Code, Detail, Title, RequestID string
		Candidates                     []string
		Errors                         []struct{ Location, Message string }
	}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20)) // what there is of it
	_ = json.Unmarshal(text, &p)                              // another program may be there
	r := &refusal{status: answer.StatusCode, code: p.Code, detail: p.Detail}
	if r.detail == "" {
		r.detail = p.Title
	}
	if r.detail == "" {
		r.detail = fmt.Sprintf("%s answers %s, and not as a register does", answer.Request.URL.Host, answer.Status)
	}
	if to, err := answer.Location(); err == nil && answer.StatusCode < 400 {
		to.User, to.RawQuery, to.Fragment = nil, "", "" // there may be secrets
		r.detail = fmt.Sprintf("%s sends on to %s: let -server (FLOWER_SERVER) say where register itself is", answer.Request.URL.Host, to)
	}
	for _, e := range p.Errors {
		if strings.Contains(r.detail, e.Message) { // the first one, as a rule
			continue
		}
		r.detail += fmt.Sprintf("\n  %s: %s", e.Location, e.Message)
	}
	for _, id := range p.Candidates {
		r.detail += "\n  " + id
	}
	switch answer.StatusCode {
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusTooManyRequests:
		r.temporary = true
	case http.StatusUnauthorized:
		r.detail += " (FLOWER_TOKEN, or -token-file)"
	case http.StatusInternalServerError:
		if p.RequestID != "" {
			r.detail += ": " + p.RequestID // which it speaks of
		}
	}
	r.detail = cli.Printable(r.detail)
	return r
}

// get reads JSON.
func (c *client) get(ctx context.Context, into any, query url.Values, path ...string) error {
	return c.call(ctx, request{method: http.MethodGet, path: path, query: query}, into)
}

// call sends a request and reads the JSON of its answer.
func (c *client) call(ctx context.Context, r request, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSilent)
	defer cancel()
	answer, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.base.Host, err)
	}
	return nil
}

// show passes an answer on, as text or as JSON.
func (c *client) show(ctx context.Context, w io.Writer, asJSON bool, query url.Values, path ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSilent)
	defer cancel()
	if query == nil {
		query = url.Values{}
	}
	query.Set("format", "text")
	if asJSON {
		query.Set("format", "json")
	}
	answer, err := c.do(ctx, request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(w, answer.Body); err != nil {
		return fmt.Errorf("pass on the answer of %s: %w", c.base.Host, err)
	}
	return nil
}
