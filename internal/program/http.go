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

// httpPost sends a POST request and expects a 2xx answer. It keeps no connections:
// every request passes the guard in the dialer, and the transport, which takes a request
// with an Idempotency-Key for one that it may repeat by itself when a kept connection
// turns out to be dead, sends exactly one request per attempt.
type httpPost struct {
	original
	transport *http.Transport
	timeout   time.Duration
}

func newHTTPPost(dialer *net.Dialer, timeout time.Duration) httpPost {
	if timeout == 0 {
		timeout = defaultHTTPTimeout
	}
	return httpPost{
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

func (httpPost) Parameters() []Parameter {
	return []Parameter{
		{
			Name:        "URL",
			Type:        URL,
			Required:    true,
			Description: "Where to send the request, by http or https. User and password in it are sent as basic authentication.",
		},
		{
			Name: "BODY",
			Type: Any,
			Description: "What to send: a string as it is, any other value as JSON. " +
				"The Content-Type is application/json if that is valid JSON, else text/plain.",
		},
	}
}

func (p httpPost) Run(ctx context.Context, in Input) (json.RawMessage, error) {
	tooLong := fmt.Errorf("no complete answer within %s", p.timeout)
	bounded, cancel := context.WithTimeoutCause(ctx, p.timeout, tooLong)
	defer cancel()

	target := in.Params.URL("URL")
	req, err := newPost(bounded, target, in)
	if err != nil {
		return nil, failed(bounded, target, err)
	}
	// Not by an http.Client: it would follow redirects, and repeat URLs in its errors.
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return nil, failed(bounded, target, err)
	}
	defer func() { _ = resp.Body.Close() }()

	// One byte more than is kept tells whether that was all.
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if resp.StatusCode/100 != 2 {
		// The status says more than that the rest of its answer did not come in time.
		return nil, failed(ctx, target, statusError{resp.StatusCode, answer})
	}
	if err != nil {
		brokeOff := fmt.Errorf("%s, but the answer broke off: %w", statusText(resp.StatusCode), err)
		return nil, failed(bounded, target, brokeOff)
	}
	return answerOutput(resp.StatusCode, answer), nil
}

// newPost makes the request. The user info of the URL becomes a header here because
// only an http.Client would see to it.
func newPost(ctx context.Context, target *url.URL, in Input) (*http.Request, error) {
	body := textOf(in.Params.JSON("BODY"))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if user := target.User; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	switch {
	case json.Valid(body):
		req.Header.Set("Content-Type", "application/json")
	case len(body) > 0:
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	req.Header.Set(idempotencyHeader, headerValue(in.Task.IdempotencyKey()))
	req.Header.Set("User-Agent", "flower")
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

// failed returns the error of a request: the cause of ctx if that has ended, else err,
// without what the target's URL keeps secret, since servers like to repeat what they
// were asked.
func failed(ctx context.Context, target *url.URL, err error) error {
	shown := *target
	shown.User, shown.RawQuery, shown.ForceQuery, shown.Fragment, shown.RawFragment = nil, "", false, "", ""
	where := cut(shown.String(), maxURLInError)
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return &flow.InvalidError{Subject: `parameter "URL"`, Problem: where + " leads to " + refused.Error()}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("POST %s: %w", where, context.Cause(ctx))
	}
	text := readable(redactor(target).Replace(err.Error()))
	return fmt.Errorf("POST %s: %s", where, cut(text, maxAnswerInError))
}
