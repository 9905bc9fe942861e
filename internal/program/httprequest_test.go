package program

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// request runs HTTPRequest.
func request(t *testing.T, parameters map[string]any) (string, error) {
	t.Helper()
	task := newTask("HTTPRequest", mustJSON(t, parameters))
	task.AttemptBase = 1
	output, err := Default(Config{}).Run(t.Context(), Attempt{Task: task})
	return string(output), err
}

func TestHTTPRequest_Sends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		parameters   map[string]any
		method, body string
		header       map[string]string // "" is none
	}{
		"no more than a URL": {
			map[string]any{},
			"GET", "",
			map[string]string{"Idempotency-Key": "f1:2:1", "User-Agent": "flower", "Content-Type": "", "Authorization": ""},
		},
		"JSON": {
			map[string]any{"method": "PUT", "body": map[string]int{"a": 1}},
			"PUT", `{"a":1}`,
			map[string]string{"Content-Type": "application/json", "Idempotency-Key": "f1:2:1"},
		},
		"a form": {
			map[string]any{"method": "POST", "body": "a=1&b=2", "headers": map[string]any{"content-type": "application/x-www-form-urlencoded"}},
			"POST", "a=1&b=2",
			map[string]string{"Content-Type": "application/x-www-form-urlencoded"},
		},
		"headers": {
			map[string]any{"method": "DELETE", "headers": map[string]any{
				"Authorization": "Bearer abc", "X-Number": 7, "accept": "text/csv", "User-Agent": "mine", "Host": "other.example", "X-Ü": nil,
			}},
			"", "", nil,
		},
		"more headers": {
			map[string]any{"method": "DELETE", "headers": map[string]any{
				"Authorization": "Bearer abc", "X-Number": 7, "accept": "text/csv", "User-Agent": "mine", "Host": "other.example", "X-Text": "grün\t!",
			}},
			"DELETE", "",
			map[string]string{
				"Authorization": "Bearer abc", "X-Number": "7", "Accept": "text/csv", "User-Agent": "mine", "Host": "", "X-Text": "grün\t!",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got *http.Request
			server := newServer(t, func(_ http.ResponseWriter, r *http.Request) { got = r })
			c.parameters["url"] = server.URL + "/a%2fb?q=1"
			_, err := request(t, c.parameters)
			if c.method == "" {
				require.ErrorAs(t, err, new(*flow.InvalidError))
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.method, got.Method)
			require.Equal(t, "/a%2fb?q=1", got.RequestURI)
			body, err := io.ReadAll(got.Body)
			require.NoError(t, err)
			require.Equal(t, c.body, string(body))
			for name, want := range c.header {
				require.Equal(t, want, got.Header.Get(name), name)
			}
			if headers, ok := c.parameters["headers"].(map[string]any); ok && headers["Host"] != nil {
				require.Equal(t, headers["Host"], got.Host)
			}
		})
	}
}

func TestHTTPRequest_ExpectedStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		expect any
		want   string // the output; or if it begins with !, the end of the error
	}{
		{200, nil, `{"status":200,"body":{"a":1}}`},
		{299, nil, `{"status":299,"body":{"a":1}}`},
		{404, nil, `!404 Not Found: {"a": 1}`},
		{404, 404, `{"status":404,"body":{"a":1}}`},
		{404, []int{200, 404}, `{"status":404,"body":{"a":1}}`},
		{200, []int{200, 404}, `{"status":200,"body":{"a":1}}`},
		{201, []int{200, 404}, `!201 Created: {"a": 1}`},
		{302, 302, `{"status":302,"body":{"a":1}}`},
		{302, nil, `!302 Found (redirects are not followed): {"a": 1}`},
		{503, nil, `!503 Service Unavailable: {"a": 1}`},
	} {
		server := newServer(t, answers(c.status, `{"a": 1}`))
		parameters := map[string]any{"url": server.URL + "/x", "method": "POST"}
		if c.expect != nil {
			parameters["expect_status"] = c.expect
		}
		output, err := request(t, parameters)
		if failure, fails := strings.CutPrefix(c.want, "!"); fails {
			require.EqualError(t, err, "POST "+server.URL+"/x: "+failure)
			require.NotErrorAs(t, err, new(*flow.InvalidError), "it may be tried again")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, output)
	}
}

func TestHTTPRequest_Head(t *testing.T) {
	t.Parallel()
	server := newServer(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1000") })
	output, err := request(t, map[string]any{"url": server.URL, "method": "HEAD"})
	require.NoError(t, err)
	require.Equal(t, `{"status":200,"body":""}`, output)
}

func TestHTTPRequest_WrongParameters(t *testing.T) {
	t.Parallel()
	const status = `"expect_status": it must be a status from 200 to 599, or an array of those: 404, or [200, 404]`
	for parameters, want := range map[string]string{
		`{}`:                                    `"url": it is missing, and must be a URL like https://example.com/path`,
		`{"url": 1}`:                            `"url": a number is not a URL like https://example.com/path`,
		`{"url": "ftp://h/"}`:                   `"url": it must begin with http:// or https://`,
		`{"url": "http://h/", "method": "get"}`: `"method": "get" is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS`,
		`{"url": "http://h/", "method": "CONNECT"}`:                             `"method": "CONNECT" is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS`,
		`{"url": "http://h/", "headers": ["a"]}`:                                `"headers": an array is not a JSON object of strings`,
		`{"url": "http://h/", "headers": {"A": ["b"]}}`:                         `"headers": "A" is an array, not a string`,
		`{"url": "http://h/", "headers": {"A B": "c"}}`:                         `"headers": "A B" is not the name of a header`,
		`{"url": "http://h/", "headers": {"A\r\nB": "c"}}`:                      `"headers": "A\r\nB" is not the name of a header`,
		`{"url": "http://h/", "headers": {"": "c"}}`:                            `"headers": "" is not the name of a header`,
		`{"url": "http://h/", "headers": {"A": "s3cret\r\nX: y"}}`:              `"headers": the value of "A" has characters that a header cannot have`,
		`{"url": "http://h/", "headers": {"A": "s3cret\u0000"}}`:                `"headers": the value of "A" has characters that a header cannot have`,
		`{"url": "http://h/", "headers": {"idempotency-key": "x"}}`:             `"headers": "idempotency-key" is Flower's to set`,
		`{"url": "http://h/", "headers": {"Transfer-Encoding": "chunked"}}`:     `"headers": "Transfer-Encoding" is Flower's to set`,
		`{"url": "http://h/", "headers": {"content-length": "5"}}`:              `"headers": "content-length" is Flower's to set`,
		`{"url": "http://h/", "expect_status": "2xx"}`:                          status,
		`{"url": "http://h/", "expect_status": []}`:                             status,
		`{"url": "http://h/", "expect_status": 99}`:                             status,
		`{"url": "http://h/", "expect_status": 600}`:                            status,
		`{"url": "http://h/", "expect_status": 200.5}`:                          status,
		`{"url": "http://h/", "expect_status": [200, "404"]}`:                   status,
		`{"url": "http://h/", "expect_status": [200, null]}`:                    status,
		`{"url": "http://h/", "expect_status": {"200": true}}`:                  status,
		`{"url": "http://h/", "expect_status": [[200]]}`:                        status,
		`{"url": "http://h/", "headers": {"Connection": "keep-alive", "B": 1}}`: `"headers": "Connection" is Flower's to set`,
	} {
		_, err := Default(Config{}).Run(t.Context(), Attempt{Task: newTask("HTTPRequest", parameters)})
		requireInvalid(t, err, "parameter "+want)
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "HTTPRequest", Parameters: json.RawMessage(parameters)}}}
		requireInvalid(t, Default(Config{}).CheckWorkflow(w, nil), `workflow "w": task_seq 1 (HTTPRequest): parameter `+want)
	}
}

// Whoever registers may give data, but neither choose where it goes nor what goes along.
func TestHTTPRequest_AtRegistration(t *testing.T) {
	t.Parallel()
	check := func(definition, request string) error {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{
			{Seq: 1, Program: "NoOp"}, {Seq: 2, Program: "HTTPRequest", Parameters: json.RawMessage(definition)},
		}}
		return Default(Config{}).CheckWorkflow(w, json.RawMessage(request))
	}
	require.NoError(t, check(`{"url": "http://h/"}`, `{"body": {"a": 1}, "for others": 1}`))
	require.NoError(t, check(`{"url": "http://h/${{ params.x }}", "method": "${{ params.m }}", "headers": {"A": "${{ secrets.A }}"},
		"expect_status": "${{ params.s }}", "body": "${{ outputs[1] }}"}`, ``))
	for _, request := range []string{`{"url": "http://evil/"}`, `{"headers": {}}`, `{"method": "DELETE"}`, `{"expect_status": 500}`} {
		require.ErrorContains(t, check(`{"url": "http://h/"}`, request), "only the definition can set it, and the request does")
	}
	require.ErrorContains(t, check(`{"URL": "http://h/"}`, ``), `parameter "URL": this program does not know it; it knows body, callback, callback_field, callback_timeout, expect_status, headers, method, url`)
}

func TestHTTPRequest_IsGuarded(t *testing.T) {
	t.Parallel()
	_, err := request(t, map[string]any{"url": "http://169.254.169.254/latest/meta-data"})
	requireInvalid(t, err, `parameter "url": http://169.254.169.254/latest/meta-data leads to 169.254.169.254, a link-local address: requests never go there`)
	_, err = request(t, map[string]any{"url": "http://[::ffff:169.254.169.254]/", "headers": map[string]string{"Host": "localhost"}})
	require.ErrorAs(t, err, new(*flow.InvalidError))
}

// Servers like to repeat what they were asked.
func TestHTTPRequest_ErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "got "+r.Header.Get("Authorization")+" and "+r.Header.Get("X-Api-Key")+" for "+r.Header.Get("Accept"))
	})
	_, err := request(t, map[string]any{"url": server.URL, "headers": map[string]string{
		"Authorization": "Bearer t0ken", "X-API-Key": "k3yk3y", "Accept": "text/csv",
	}})
	require.EqualError(t, err, "GET "+server.URL+": 401 Unauthorized: got … and … for text/csv")
	_, err = request(t, map[string]any{"url": strings.Replace(server.URL, "://", "://me:pa55@", 1)})
	require.EqualError(t, err, "GET "+server.URL+": 401 Unauthorized: got Basic … and for")
}
