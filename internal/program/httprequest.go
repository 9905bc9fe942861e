package program

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// httpRequest sends a request, and expects a 2xx answer or one of those it is told. The
// result may also come later: see callback.go.
type httpRequest struct {
	sender
	callbacks   Callbacks
	callbackURL string // where register can be called; empty: nobody knows
}

func newHTTPRequest(dialer *net.Dialer, cfg Config) httpRequest {
	return httpRequest{newSender(dialer, cfg.HTTPTimeout), cfg.Callbacks, strings.TrimSuffix(cfg.CallbackURL, "/")}
}

func (httpRequest) Parameters() []Parameter {
	return []Parameter{
		{
			Name: "method", Type: String, Fixed: true, Default: json.RawMessage(`"GET"`),
			OneOf:       []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"},
			Description: "How to ask.",
		},
		{
			Name: "url", Type: URL, Required: true, Fixed: true,
			Description: "Whom to ask, by http or https. User and password in it are sent as basic authentication.",
		},
		{
			Name: "headers", Type: Map, Fixed: true,
			Description: "Headers of the request, beside Idempotency-Key.",
		},
		{
			Name: "body", Type: Any,
			Description: "What to send: a string as it is, any other value as JSON. " +
				"The Content-Type, unless headers have one, is application/json if that is valid JSON, else text/plain.",
		},
		{
			Name: "expect_status", Type: Any, Fixed: true,
			Description: "A status, or an array of those, that are success: 404, or [200, 404]. By default each from 200 to 299 is.",
		},
		{
			Name: "callback", Type: Boolean, Fixed: true, Default: json.RawMessage(`false`),
			Description: "Whether the status 202 means that the result comes later, by a POST to the URL in the request's header " + callbackHeader + ".",
		},
		{
			Name: "callback_field", Type: String, Fixed: true,
			Description: "A field of the body, an object, that gets this URL, too.",
		},
		{
			Name: "callback_timeout", Type: String, Fixed: true, Default: json.RawMessage(`"24h"`),
			Description: "How long to wait for that POST: 90s, 2h30m, 2d, or a number of seconds.",
		},
	}
}

var (
	headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	headerText = regexp.MustCompile("^[\t\x20-\x7e\u0080-\U0010ffff]*$")
	ownHeaders = []string{idempotencyHeader, callbackHeader, "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Te", "Trailer", "Upgrade", "Expect"}
)

func (httpRequest) Check(v Values) error {
	headers := v.Map("headers")
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		switch {
		case !headerName.MatchString(name):
			return invalid("headers", quote(name)+" is not the name of a header")
		case slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)):
			return invalid("headers", quote(name)+" is Flower's to set")
		case !headerText.MatchString(headers[name]):
			return invalid("headers", "the value of "+quote(name)+" has characters that a header cannot have")
		}
	}
	if !v.Open("expect_status") {
		if _, err := statuses(v.JSON("expect_status")); err != nil {
			return err
		}
	}
	return checkCallback(v)
}

// statuses decodes expect_status; nil is none.
func statuses(raw json.RawMessage) ([]int, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var list []int
	if kindOf(raw) != "an array" {
		list = make([]int, 1)
		if json.Unmarshal(raw, &list[0]) != nil {
			list = nil
		}
	} else if json.Unmarshal(raw, &list) != nil {
		list = nil
	}
	if len(list) == 0 || slices.ContainsFunc(list, func(status int) bool { return status < 200 || status > 599 }) {
		return nil, invalid("expect_status", "it must be a status from 200 to 599, or an array of those: 404, or [200, 404]")
	}
	return list, nil
}

func (p httpRequest) Run(ctx context.Context, in Input) (json.RawMessage, error) {
	expected := isSuccess
	list, err := statuses(in.Params.JSON("expect_status"))
	if err != nil {
		return nil, err
	}
	if list != nil {
		expected = func(status int) bool { return slices.Contains(list, status) }
	}
	m := message{
		method: in.Params.String("method"), parameter: "url", target: in.Params.URL("url"),
		headers: in.Params.Map("headers"), body: in.Params.JSON("body"), expected: expected,
	}
	if in.Params.Bool("callback") {
		return p.ask(ctx, in, m)
	}
	return p.send(ctx, m, in.Task)
}

// secretHeaders returns the values of headers that are named as secrets are, whole and,
// of "Bearer abc", the part that matters.
func secretHeaders(headers map[string]string) (secrets []string) {
	for name, value := range headers {
		if flow.SecretKey(name) || strings.Contains(strings.ToLower(name), "cookie") {
			secrets = append(secrets, value)
			secrets = append(secrets, strings.Fields(value)...)
		}
	}
	return secrets
}
