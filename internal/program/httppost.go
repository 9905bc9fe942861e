package program

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"time"
)

// httpPost sends a POST request and expects a 2xx answer, as the original's did.
type httpPost struct {
	original
	sender
}

func newHTTPPost(dialer *net.Dialer, timeout time.Duration) httpPost {
	return httpPost{sender: newSender(dialer, timeout)}
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
	return p.send(ctx, message{
		method: http.MethodPost, parameter: "URL", target: in.Params.URL("URL"), body: in.Params.JSON("BODY"), expected: isSuccess,
	}, in.Task)
}

func isSuccess(status int) bool { return status/100 == 2 }
