package program

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestHTTPPost_Output(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status     int
		body, want string
	}{
		{200, `{"b": 1.50, "a": [null]}`, `{"status":200,"body":{"a":[null],"b":1.50}}`},
		{200, `thank you`, `{"status":200,"body":"thank you"}`},
		{201, ``, `{"status":201,"body":""}`},
		{204, ``, `{"status":204,"body":""}`},
		{299, `"<&>"`, `{"status":299,"body":"<&>"}`},
		{200, ` 1 `, `{"status":200,"body":1}`},
		{200, `{"a":1} {"a":2}`, `{"status":200,"body":"{\"a\":1} {\"a\":2}"}`},
		{200, "a\x00b\xff", `{"status":200,"body":"a` + "\uFFFDb\uFFFD" + `"}`},
		// What jsonb cannot hold is kept as text, or mended.
		{200, `{"a":"\u0000"}`, `{"status":200,"body":"{\"a\":\"\\u0000\"}"}`},
		{200, `[{"\u0000":1}]`, `{"status":200,"body":"[{\"\\u0000\":1}]"}`},
		{200, `1e999999`, `{"status":200,"body":"1e999999"}`},
		{200, `"\ud800x"`, `{"status":200,"body":"` + "\uFFFDx" + `"}`},
	} {
		t.Run(c.body, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, answers(c.status, c.body))
			output, err := post(t, map[string]any{"URL": server.URL})
			require.NoError(t, err)
			require.Equal(t, c.want, output)
		})
	}
}

func TestHTTPPost_HugeAnswersAreCut(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]string{
		"text": "x", "quotes": `"`, "control characters": "\x01", "long characters": "𝄞", "digits": "1",
		"spaces": " ", "some bytes": "ab\xff", "mixed": strings.Repeat("x", 5000) + strings.Repeat("\x01", 5000),
	} {
		for _, size := range []int{flow.MaxOutput - 20, flow.MaxOutput, flow.MaxOutput + 1, 1 << 20} {
			answer := strings.Repeat(part, size/len(part)+1)
			server := newServer(t, answers(200, answer))
			output, err := post(t, map[string]any{"URL": server.URL})
			require.NoError(t, err, name)
			require.LessOrEqual(t, len(output), flow.MaxOutput, name)

			var got struct {
				Body      string
				Truncated bool
			}
			require.NoError(t, json.Unmarshal([]byte(output), &got), name)
			require.True(t, got.Truncated, name)
			require.Greater(t, len(output), flow.MaxOutput/4, name)
			require.True(t, strings.HasPrefix(strings.ToValidUTF8(answer, "\uFFFD"), got.Body), name)
		}
	}
}

func TestHTTPPost_OtherStatusesAreErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status     int
		body, want string
	}{
		{500, "", "500 Internal Server Error"},
		{503, "try\r\n\tlater\n", "503 Service Unavailable: try later"},
		{404, `{"error": "no such ü"}`, `404 Not Found: {"error": "no such ü"}`},
		{799, "what", "799: what"},
		{418, "\x1b[31m\x00red\u202e\u2028\xff", "418 I'm a teapot: [31mred \uFFFD"},
		{302, "over there", "302 Found (redirects are not followed): over there"},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, answers(c.status, c.body))
			output, err := post(t, map[string]any{"URL": server.URL + "/path"})
			require.EqualError(t, err, "POST "+server.URL+"/path: "+c.want)
			require.Empty(t, output)
			require.NotErrorAs(t, err, new(*flow.InvalidError))
		})
	}
}

func TestHTTPPost_LongErrorsAreCut(t *testing.T) {
	t.Parallel()
	server := newServer(t, answers(500, strings.Repeat("ü", 1<<20)))
	_, err := post(t, map[string]any{"URL": server.URL + "/" + strings.Repeat("p", 5000)})
	require.Less(t, len(err.Error()), 3<<10)
	require.Greater(t, strings.Count(err.Error(), "ü"), 900)
	require.True(t, utf8.ValidString(err.Error()))
}

func TestHTTPPost_ErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	echo := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		w.WriteHeader(400)
		_, _ = io.WriteString(w, "no route for "+r.RequestURI+"; token is "+r.FormValue("token")+" from "+user+" with "+password+"; n is 1")
	})
	breaks := newServer(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, base := range []string{echo.URL, breaks.URL, closed.URL, "http://169.254.169.254", "http://no.invalid"} {
		u := strings.Replace(base, "://", "://alice:pa55word@", 1) + "/path?token=s3cr%2Bt&n=1#fragment"
		_, err := post(t, map[string]any{"URL": u})
		require.ErrorContains(t, err, base+"/path")
		for _, secret := range []string{"alice", "pa55word", "s3cr", "token=", "n=1", "fragment"} {
			require.NotContains(t, err.Error(), secret)
		}
	}
	_, err := post(t, map[string]any{"URL": echo.URL + "/p?token=abcdef&n=1"})
	require.EqualError(t, err, "POST "+echo.URL+"/p: 400 Bad Request: no route for /p?…; token is … from with ; n is 1")
}

func TestHTTPPost_BrokenAnswers(t *testing.T) {
	t.Parallel()
	breaksOff := func(status int) *httptest.Server {
		return newServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "half of it")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
	}
	server := breaksOff(200)
	_, err := post(t, map[string]any{"URL": server.URL})
	require.EqualError(t, err, "POST "+server.URL+": 200 OK, but the answer broke off: unexpected EOF")

	server = breaksOff(500)
	_, err = post(t, map[string]any{"URL": server.URL})
	require.EqualError(t, err, "POST "+server.URL+": 500 Internal Server Error: half of it")
}

func FuzzAnswer(f *testing.F) {
	for _, answer := range []string{``, `{}`, `"\ud800"`, "\xff\x00", `{"a":[1e9999]}`, "\x01", "\xff\xff", "xxxx\x01"} {
		f.Add([]byte(answer), uint16(1))
		f.Add([]byte(answer), uint16(maxAnswer-1))
	}
	f.Fuzz(func(t *testing.T, part []byte, times uint16) {
		answer := part
		for range times {
			if len(answer) > maxAnswer {
				break
			}
			answer = append(answer, part...)
		}
		answer = answer[:min(len(answer), maxAnswer+1)]

		output := answerOutput(200, answer)
		require.True(t, utf8.Valid(output))
		require.LessOrEqual(t, len(output), flow.MaxOutput)
		decoded, ok := storable(output)
		require.True(t, ok, "%s", output)
		require.NotNil(t, decoded)

		text := readable(statusError{500, answer}.Error())
		require.True(t, utf8.ValidString(text))
		require.NotContains(t, text, "\x00")
		require.Equal(t, text, readable(text))
	})
}
