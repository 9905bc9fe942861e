package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

const (
	defaultHTTPTimeout = 30 * time.Second
	connectTimeout     = 5 * time.Second // for TCP, and once more for TLS
	maxAnswer          = flow.MaxOutput  // bytes of an answer that are read
	maxAnswerInError   = 2 << 10         // bytes of it that an error repeats
	maxURLInError      = 256             // bytes of a URL that an error repeats
	idempotencyHeader  = "Idempotency-Key"
)

// sender sends requests. It keeps no connections: every request passes the guard in the
// dialer, and the transport, which takes a request with an Idempotency-Key for one that it
// may repeat by itself when a kept connection turns out to be dead, sends exactly one
// request per attempt.
type sender struct {
	transport *http.Transport
	timeout   time.Duration
}

func newSender(dialer *net.Dialer, timeout time.Duration) sender {
	if timeout == 0 {
		timeout = defaultHTTPTimeout
	}
	return sender{
		timeout: timeout,
		transport: &http.Transport{
			// No Proxy: the guard would see the proxy's address instead of the target's.
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    connectTimeout,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}

// message is a request as a task describes it.
type message struct {
	method    string
	parameter string // that target came from
	target    *url.URL
	headers   map[string]string
	body      json.RawMessage // a string is sent as it is, any other value as JSON
	expected  func(status int) bool
	token     string // that is in it and must not be repeated; empty is none
}

// send sends a message and returns what came of it as an output.
func (s sender) send(ctx context.Context, m message, t flow.Task) (json.RawMessage, error) {
	status, answer, err := s.exchange(ctx, m, t)
	if err != nil {
		return nil, err
	}
	return answerOutput(status, answer), nil
}

// exchange sends a message and returns the answer, if that is what is expected.
func (s sender) exchange(ctx context.Context, m message, t flow.Task) (status int, answer []byte, err error) {
	tooLong := fmt.Errorf("no complete answer within %s", s.timeout)
	bounded, cancel := context.WithTimeoutCause(ctx, s.timeout, tooLong)
	defer cancel()

	req, err := m.request(bounded, t)
	if err != nil {
		return 0, nil, m.failed(bounded, err)
	}
	// Not by an http.Client: it would follow redirects, and repeat URLs in its errors.
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return 0, nil, m.failed(bounded, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// Nobody asked for that. What follows is no answer but the connection itself, on
		// which neither a timeout nor a cancellation would end a read.
		return 0, nil, m.failed(ctx, statusError{code: resp.StatusCode})
	}

	// One byte more than is kept tells whether that was all.
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if !m.expected(resp.StatusCode) {
		// The status says more than that the rest of its answer did not come in time.
		return 0, nil, m.failed(ctx, statusError{resp.StatusCode, answer})
	}
	if err != nil {
		brokeOff := fmt.Errorf("%s, but the answer broke off: %w", statusText(resp.StatusCode), err)
		return 0, nil, m.failed(bounded, brokeOff)
	}
	return resp.StatusCode, answer, nil
}

// request makes the request. The user info of the URL becomes a header here because only
// an http.Client would see to it.
func (m message) request(ctx context.Context, t flow.Task) (*http.Request, error) {
	body := textOf(m.body)
	req, err := http.NewRequestWithContext(ctx, m.method, m.target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if user := m.target.User; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	switch {
	case json.Valid(body):
		req.Header.Set("Content-Type", "application/json")
	case len(body) > 0:
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	req.Header.Set(idempotencyHeader, headerValue(t.IdempotencyKey()))
	req.Header.Set("User-Agent", "flower")
	for name, value := range m.headers {
		if http.CanonicalHeaderKey(name) == "Host" { // the transport takes it from here alone
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	return req, nil
}

// headerValue keeps what a header can carry, and escapes the rest: the id of a flow that
// was put in by hand can be any text.
func headerValue(s string) string {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return url.QueryEscape(s)
		}
	}
	return s
}

// where shows the target to people.
func (m message) where() string {
	shown := *m.target
	shown.User, shown.RawQuery, shown.ForceQuery, shown.Fragment, shown.RawFragment = nil, "", false, "", ""
	return cut(shown.String(), maxURLInError)
}

// failed returns the error of a request: the cause of ctx if that has ended, else err,
// without what the request keeps secret, since servers like to repeat what they were
// asked.
func (m message) failed(ctx context.Context, err error) error {
	where := m.where()
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return invalid(m.parameter, where+" leads to "+refused.Error())
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", m.method, where, context.Cause(ctx))
	}
	text := readable(m.redactor().Replace(err.Error()))
	return fmt.Errorf("%s %s: %s", m.method, where, cut(text, maxAnswerInError))
}
