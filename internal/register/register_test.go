package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// The command of the contract, to the letter.
func TestRegister_TheContractsCurl(t *testing.T) {
	t.Parallel()
	var got flow.Registration
	w := send(t, serving(recording(&got)), "POST", "/register", `{"taskId": "sample"}`, "Content-Type", "application/json")
	require.Equal(t, http.StatusCreated, w.Code)
	id, err := uuid.Parse(string(got.FlowID))
	require.NoError(t, err)
	require.Equal(t, uuid.Version(7), id.Version())
	require.JSONEq(t, fmt.Sprintf(`{"status":"succeeded","taskId":"sample","taskFlowId":%q}`, id), w.Body.String())
	require.Equal(t, "/api/v1/flows/"+id.String(), w.Header().Get("Location"))
	require.Equal(t, flow.Registration{
		FlowID: got.FlowID, WorkflowID: "sample", RegisteredBy: "anonymous@192.0.2.1",
	}, got)
}

func TestRegister_EveryFormOfThePath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ path, body string }{
		{"/register", `{"taskId":"sample"}`},
		{"/register/", `{"taskId":"sample"}`},
		{"/register/sample", ""},
		{"/register/sample/", ""},
		{"/register/sample", " \r\n"},
		{"/register/sample", "{}"},
		{"/register/sample/", `{"taskId":"sample"}`},
		{"/register/sample", `{"parameters":{}}`},
		{"/register?debug=1", `{"taskId":"sample"}`},
	} {
		w := send(t, serving(fakeStore{}), "POST", c.path, c.body)
		require.Equal(t, http.StatusCreated, w.Code, "%s %s: %s", c.path, c.body, w.Body)
		a := answerOf(t, w)
		require.Equal(t, "succeeded", a.Status)
		require.Equal(t, "sample", a.TaskID)
	}
}

func TestRegister_AnyContentTypeWillDo(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{
		"", "application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "nonsense",
	} {
		r := newRequest(t, "POST", "/register", `{"taskId":"sample"}`)
		r.Header.Set("Content-Type", contentType)
		require.Equal(t, http.StatusCreated, do(serving(fakeStore{}), r).Code, contentType)
	}
}

func TestRegister_IDsMayHoldAnything(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"a b", "a/b", "/", "//", "..", ".", "%", "%2F", "日本語", strings.Repeat("語", 256), strings.Repeat("😀", 256),
		"a?b#c", "a+b", `"'\`, "<script>", "a\r\nb", "../api/v1/flows/x", "register", " ",
	} {
		var got flow.Registration
		h := serving(recording(&got))
		for _, slash := range []string{"", "/"} {
			w := send(t, h, "POST", "/register/"+url.PathEscape(id)+slash, "")
			// A dot segment that is not escaped is a path like any other here.
			require.Equal(t, http.StatusCreated, w.Code, "%q: %s", id, w.Body)
			require.Equal(t, flow.WorkflowID(id), got.WorkflowID)
			require.Equal(t, id, answerOf(t, w).TaskID)
		}
		body, err := json.Marshal(map[string]string{"taskId": id})
		require.NoError(t, err)
		w := send(t, h, "POST", "/register", string(body))
		require.Equal(t, http.StatusCreated, w.Code, "%q: %s", id, w.Body)
		require.Equal(t, flow.WorkflowID(id), got.WorkflowID)
		require.Equal(t, id, answerOf(t, w).TaskID)
	}
}

func TestRegister_OptionalFields(t *testing.T) {
	t.Parallel()
	var got flow.Registration
	w := send(t, serving(recording(&got)), "POST", "/register", `{
		"taskId": "sample", "priority": -20, "note": "because", "registeredBy": "cron", "unknown": [1, {"x": null}],
		"parameters": {"z": 1.50, "a": {"y": [true, null], "b": 12345678901234567890}, "html": "<&>"}
	}`)
	require.Equal(t, http.StatusCreated, w.Code)
	priority := -20
	require.Equal(t, flow.Registration{
		FlowID: got.FlowID, WorkflowID: "sample", Priority: &priority, Note: "because", RegisteredBy: "cron",
		Parameters: json.RawMessage(`{"a":{"b":12345678901234567890,"y":[true,null]},"html":"<&>","z":1.50}`),
	}, got)

	for _, none := range []string{`null`, `{}`} {
		send(t, serving(recording(&got)), "POST", "/register", `{"taskId":"sample","parameters":`+none+`}`)
		require.Nil(t, got.Parameters)
	}
}

// A field that was misspelt is ignored, as ever; who sent it is told.
func TestRegister_NamesTheFieldsThatItIgnores(t *testing.T) {
	t.Parallel()
	for path, body := range map[string]string{
		"/register":        `{"TASKID": "sample", "Parameters": {}, "parameter": {"day": 1}, "Prio": 3, "note": ""}`,
		"/register/sample": `{"parameter": {"day": 1}, "Prio": 3}`,
	} {
		w := send(t, serving(recording(new(flow.Registration))), "POST", path, body)
		require.Equal(t, http.StatusCreated, w.Code)
		require.Equal(t, []string{"Prio", "parameter"}, answerOf(t, w).Ignored)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf(`"%02d%s": null`, i, strings.Repeat("x", 1000)))
	}
	w := send(t, serving(recording(new(flow.Registration))), "POST", "/register/sample", "{"+strings.Join(many, ",")+"}")
	require.Less(t, w.Body.Len(), 1000)
	require.Len(t, answerOf(t, w).Ignored, maxIgnored)
}

func TestRegister_Refusals(t *testing.T) {
	t.Parallel()
	const sample = `{"taskId":"sample"`
	deep := strings.Repeat("[", 101) + strings.Repeat("]", 101)
	for name, c := range map[string]struct {
		path, body string
		status     int
		taskID     string
		want       string // in the description
	}{
		"unknown workflow":    {"", `{"taskId":"nope"}`, 404, "nope", "no tasks registered"},
		"unknown, by path":    {"/nope", "", 404, "nope", "no tasks registered"},
		"further path":        {"/sample/more", "", 404, "", "there is nothing at this path"},
		"two slashes":         {"//", "", 404, "", "there is nothing at this path"},
		"empty body":          {"", "", 400, "", `line 1, column 1 (byte 0): unexpected end of JSON input; send for example {"taskId": "sample"}`},
		"a form":              {"", "taskId=sample", 400, "", `line 1, column 2 (byte 1): invalid character 'a' in literal true (expecting 'r'); send for example {"taskId": "sample"}`},
		"a form, by path":     {"/sample", "x=1", 400, "sample", "line 1, column 1 (byte 0)"},
		"cut off":             {"", `{"taskId":`, 400, "", "line 1, column 11 (byte 10): unexpected end"},
		"third line":          {"", "{\n  \"é\": 1,\n  \"語\": x\n}", 400, "", "line 3, column 8 (byte 22): invalid character 'x'"},
		"more after it":       {"", sample + "} x", 400, "", "line 1, column 21 (byte 20): invalid character 'x' after top-level value"},
		"two of them":         {"", sample + "}{}", 400, "", "after top-level value"},
		"an array":            {"", `["sample"]`, 400, "", "must be a JSON object"},
		"a string":            {"", `"sample"`, 400, "", "must be a JSON object"},
		"null":                {"", `null`, 400, "", "must be a JSON object"},
		"not UTF-8":           {"", "{\"taskId\":\"\xff\"}", 400, "", "line 1, column 12 (byte 11): it is not UTF-8"},
		"NUL":                 {"", "{\"taskId\":\"a\x00\"}", 400, "", "byte 12): it contains U+0000"},
		"escaped NUL":         {"", `{"taskId":"\u0000"}`, 400, "", "byte 11): it contains U+0000"},
		"NUL anywhere":        {"", sample + `,"parameters":{"a":["\u0000"]}}`, 400, "", "it contains U+0000"},
		"NUL, in path":        {"/a%00", "", 400, "", "U+0000"},
		"not UTF-8, in path":  {"/%ff", "", 400, "", "UTF-8"},
		"half a surrogate":    {"", `{"taskId":"\ud83d"}`, 400, "", "surrogate"},
		"halves, wrong order": {"", `{"taskId":"\ude00\ud83d"}`, 400, "", "surrogate"},
		"too deep":            {"", sample + `,"x":` + deep + "}", 400, "", "deeper than 100 levels"},

		"no taskId":            {"", `{}`, 422, "", "taskId is missing"},
		"null taskId":          {"", `{"taskId":null}`, 422, "", "taskId is missing"},
		"empty taskId":         {"", `{"taskId":""}`, 422, "", "taskId is missing"},
		"number as taskId":     {"", `{"taskId":1}`, 422, "", "taskId must be a string, not a JSON number"},
		"long taskId":          {"", `{"taskId":"` + strings.Repeat("語", 257) + `"}`, 422, strings.Repeat("語", 257), "longer than 256 characters"},
		"long taskId, in path": {"/" + strings.Repeat("a", 257), "", 422, strings.Repeat("a", 257), "longer than 256 characters"},
		"two ids":              {"/sample", `{"taskId":"other"}`, 422, "sample", `the path names workflow "sample" and the body "other"`},
		"parameters, a string": {"", sample + `,"parameters":"x"}`, 422, "sample", "parameters must be a JSON object"},
		"parameters, an array": {"", sample + `,"parameters":[]}`, 422, "sample", "parameters must be a JSON object"},
		"long parameter key":   {"", sample + `,"parameters":{"` + strings.Repeat("k", 201) + `":1}}`, 422, "sample", "longer than 200 characters"},
		"huge number":          {"", sample + `,"parameters":{"n":1e400}}`, 422, "sample", `"n" has a number`},
		"tiny number":          {"", sample + `,"parameters":{"n":{"m":[1e-400]}}}`, 422, "sample", `"n" has a number`},
		"exact number":         {"", sample + `,"parameters":{"n":0.` + strings.Repeat("1", 1001) + `}}`, 422, "sample", `"n" has a number`},
		"priority too low":     {"", sample + `,"priority":-21}`, 422, "sample", "priority is -21 and must be from -20 to 19"},
		"priority too high":    {"", sample + `,"priority":20}`, 422, "sample", "must be from -20 to 19"},
		"priority, a fraction": {"", sample + `,"priority":1.5}`, 422, "", "priority must be a whole number from -20 to 19"},
		"priority, a string":   {"", sample + `,"priority":"1"}`, 422, "", "priority must be a whole number from -20 to 19"},
		"long note":            {"", sample + `,"note":"` + strings.Repeat("n", 2001) + `"}`, 422, "sample", "longer than 2000 characters"},
		"long registeredBy":    {"", sample + `,"registeredBy":"` + strings.Repeat("n", 201) + `"}`, 422, "sample", "longer than 200 characters"},
		"note, a number":       {"", sample + `,"note":1}`, 422, "", "note must be a string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := send(t, serving(fakeStore{}), "POST", "/register"+c.path, c.body)
			require.Equal(t, c.status, w.Code, w.Body.String())
			a := answerOf(t, w)
			require.Equal(t, "failed", a.Status)
			require.Contains(t, a.Description, c.want)
			require.Empty(t, a.TaskFlowID)
			require.Empty(t, w.Header().Get("Location"))
			if c.taskID != "" {
				require.Equal(t, c.taskID, a.TaskID)
			}
		})
	}
}

func TestRegister_UnknownWorkflowIsTheContractsAnswer(t *testing.T) {
	t.Parallel()
	w := send(t, serving(fakeStore{}), "POST", "/register", `{"taskId":"nope"}`)
	require.Equal(t, http.StatusNotFound, w.Code)
	require.JSONEq(t, `{"status":"failed","taskId":"nope","description":"no tasks registered"}`, w.Body.String())
}

func TestRegister_NumbersThatTheDatabaseCanHoldPass(t *testing.T) {
	t.Parallel()
	for _, n := range []string{"0", "-0", "0e99", "0.0", "1e308", "-1e-300", "123456789012345678901234567890.5"} {
		w := send(t, serving(fakeStore{}), "POST", "/register/sample", `{"parameters":{"n":`+n+`}}`)
		require.Equal(t, http.StatusCreated, w.Code, n)
	}
}

func TestRegister_TheBodysLimitIsOneMiB(t *testing.T) {
	t.Parallel()
	body := func(n int) string {
		const frame = `{"taskId":"sample","x":""}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", n-len(frame))+`"`, 1)
	}
	require.Equal(t, http.StatusCreated, send(t, serving(fakeStore{}), "POST", "/register", body(1<<20)).Code)

	unread := newRequest(t, "POST", "/register", body(1<<20+1))
	unread.Body = noBody{t} // by its Content-Length alone
	chunked := newRequest(t, "POST", "/register/sample", body(1<<20+1))
	chunked.ContentLength = -1
	for _, r := range []*http.Request{unread, chunked} {
		w := do(serving(fakeStore{}), r)
		require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
		require.Contains(t, answerOf(t, w).Description, "larger than 1 MiB")
		require.Equal(t, "close", w.Header().Get("Connection"))
	}
}

type noBody struct{ t *testing.T }

func (b noBody) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, errors.New("read")
}
func (noBody) Close() error { return nil }

func TestRegister_OtherMethods(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/register", "/register/", "/register/sample", "/register/sample/"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
			w := send(t, serving(fakeStore{}), method, path, "")
			require.Equal(t, http.StatusMethodNotAllowed, w.Code, "%s %s", method, path)
			require.Equal(t, "POST", w.Header().Get("Allow"))
			require.Equal(t, "failed", answerOf(t, w).Status)
		}
	}
}

func TestRegister_ErrorsOfTheStore(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(context.Background())
	end()
	for name, c := range map[string]struct {
		err        error
		status     int
		want       string
		retryAfter string
	}{
		"not found":       {fmt.Errorf("x: %w", flow.ErrNotFound), 404, "no tasks registered", ""},
		"broken workflow": {fmt.Errorf("register: %w", &flow.InvalidError{Subject: `workflow "a"`, Problem: "task_seq 3 depends on 7, which does not exist"}), 422, `workflow "a": task_seq 3 depends on 7, which does not exist`, ""},
		"key reused":      {flow.ErrKeyReused, 422, "used for a different request", ""},
		"unavailable":     {fmt.Errorf("dial tcp 10.1.2.3:5432: %w", flow.ErrUnavailable), 503, "the database is not available", "5"},
		"unexpected":      {errors.New(`pq: column "x" of 10.1.2.3 does not exist`), 500, "internal error", ""},
		"somebody's end":  {ended.Err(), 500, "internal error", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			h := New(Config{Host: "localhost"}, failing(c.err), log.logger()).Handler()
			w := send(t, h, "POST", "/register/sample", `{"parameters":{"PASSWORD":"s3cret"}}`)
			require.Equal(t, c.status, w.Code)
			a := answerOf(t, w)
			require.Equal(t, "sample", a.TaskID)
			require.Contains(t, a.Description, c.want)
			require.Equal(t, c.retryAfter, w.Header().Get("Retry-After"))
			for _, secret := range []string{"10.1.2.3", "pq:", "s3cret"} {
				require.NotContains(t, w.Body.String(), secret)
			}
			require.NotContains(t, log.String(), "s3cret")

			logged := strings.Count(log.String(), `msg="request failed"`) + strings.Count(log.String(), `msg="the database is away: requests are answered with 503"`)
			if c.status < 500 {
				require.Zero(t, logged)
				return
			}
			require.Equal(t, 1, logged, log.String())
			require.Contains(t, log.String(), "request="+w.Header().Get("X-Request-Id"))
			if c.status == 500 {
				require.Equal(t, w.Header().Get("X-Request-Id"), a.RequestID)
			}
		})
	}
}

func TestRegister_IdempotencyKey(t *testing.T) {
	t.Parallel()
	var got flow.Registration
	h := serving(recording(&got))
	keyed := func(key, path, body string) flow.Registration {
		t.Helper()
		w := send(t, h, "POST", path, body, "Idempotency-Key", key)
		require.Equal(t, http.StatusCreated, w.Code, w.Body.String())
		require.Equal(t, key, got.IdempotencyKey)
		require.Regexp(t, "^[0-9a-f]{64}$", got.Fingerprint)
		return got
	}
	first := keyed("k", "/register", `{"taskId":"a","parameters":{"x":1,"y":{"p":[1,2],"q":"é"}},"priority":3}`)
	for _, same := range []struct{ path, body string }{
		{"/register", `{ "priority": 3, "parameters": {"y": {"q": "\u00e9", "p": [1, 2]}, "x": 1}, "taskId": "a" }`},
		{"/register/a/", `{"parameters":{"x":0,"x":1,"y":{"p":[1,2],"q":"é"}},"priority":3}`},
		{"/register/a", `{"parameters":{"x":1,"y":{"p":[1,2],"q":"é"}},"priority":3,"note":"again","registeredBy":"x"}`},
	} {
		again := keyed("語 "+strings.Repeat("k", 198), same.path, same.body)
		require.Equal(t, first.Fingerprint, again.Fingerprint, same.body)
		require.NotEqual(t, first.FlowID, again.FlowID)
	}
	for _, other := range []string{
		`{"taskId":"b","parameters":{"x":1,"y":{"p":[1,2],"q":"é"}},"priority":3}`,
		`{"taskId":"a","parameters":{"x":1,"y":{"p":[2,1],"q":"é"}},"priority":3}`,
		`{"taskId":"a","parameters":{"x":"1","y":{"p":[1,2],"q":"é"}},"priority":3}`,
		`{"taskId":"a","parameters":{"x":1,"y":{"p":[1,2],"q":"é"}},"priority":4}`,
		`{"taskId":"a","parameters":{"x":1,"y":{"p":[1,2],"q":"é"}}}`,
		`{"taskId":"a"}`,
	} {
		require.NotEqual(t, first.Fingerprint, keyed("k", "/register", other).Fingerprint, other)
	}
	require.Equal(t, keyed("k", "/register/a", "").Fingerprint, keyed("k", "/register/a", `{"parameters":{}}`).Fingerprint)

	for _, bad := range []string{"", strings.Repeat("k", 201), "a\x7fb", "a\tb", "\xff", "a\u202eb"} {
		w := send(t, h, "POST", "/register/a", "", "Idempotency-Key", bad)
		require.Equal(t, http.StatusBadRequest, w.Code, "%q", bad)
		require.Contains(t, answerOf(t, w).Description, "1 to 200 printable characters")
	}
	w := send(t, h, "POST", "/register/a", "", "Idempotency-Key", "a", "Idempotency-Key", "b")
	require.Equal(t, http.StatusBadRequest, w.Code)
}

func TestRegister_AReplayIsTheSameAnswerMarked(t *testing.T) {
	t.Parallel()
	h := serving(fakeStore{register: func(context.Context, flow.Registration) (flow.Flow, error) {
		return flow.Flow{ID: "earlier", WorkflowID: "sample", Replayed: true}, nil
	}})
	w := send(t, h, "POST", "/register/sample", "", "Idempotency-Key", "k")
	require.Equal(t, http.StatusCreated, w.Code)
	require.Equal(t, "true", w.Header().Get("Idempotency-Replayed"))
	require.Equal(t, "/api/v1/flows/earlier", w.Header().Get("Location"))
	require.Equal(t, registerAnswer{Status: "succeeded", TaskID: "sample", TaskFlowID: "earlier"}, answerOf(t, w))
	require.Empty(t, send(t, serving(fakeStore{}), "POST", "/register/sample", "").Header().Get("Idempotency-Replayed"))
}

func TestRegister_LogsOneLineForANewFlow(t *testing.T) {
	t.Parallel()
	var log logBuffer
	h := New(Config{Host: "localhost"}, fakeStore{}, log.logger()).Handler()
	w := send(t, h, "POST", "/register", `{"taskId":"sample","parameters":{"a":"canary"},"note":"canary"}`)
	var lines []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "level=INFO") {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 1, log.String())
	require.Contains(t, lines[0], `msg="flow registered" component=register flow=`+answerOf(t, w).TaskFlowID+" task=sample")
	require.NotContains(t, log.String(), "canary")
}

func FuzzRegisterBody(f *testing.F) {
	for _, seed := range []string{
		`{"taskId":"sample"}`, `{"taskId":"sample","parameters":{"a":[1,{"b":null}]},"priority":-20,"note":"n"}`,
		``, `null`, `[]`, `{`, `"`, `{"taskId":"\ud83d\ude00"}`, `{"taskId":"\u0000"}`, `{"\`, `{"a":"\u12`, "\xff",
		`{"parameters":{"n":1e999}}`, `{"taskId":1,"priority":{}}`, `taskId=sample`, "{\"a\":\"\n\"}", `{"parameters":[[[[]]]]}`,
	} {
		f.Add([]byte(seed), "sample", "key")
		f.Add([]byte(seed), "", "")
	}
	h := serving(fakeStore{})
	f.Fuzz(func(t *testing.T, body []byte, id, key string) {
		path := "/register"
		if id != "" {
			path += "/" + url.PathEscape(id)
		}
		r := newRequest(t, "POST", path, string(body))
		if key != "" {
			r.Header["Idempotency-Key"] = []string{key}
		}
		w := do(h, r)
		a := answerOf(t, w)
		switch w.Code {
		case http.StatusCreated:
			require.Equal(t, "succeeded", a.Status)
			require.NotEmpty(t, a.TaskFlowID)
		case 400, 404, 413, 414, 422:
			require.Equal(t, "failed", a.Status)
			require.NotEmpty(t, a.Description)
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}

func TestRegister_SecO1_TooManyFlowsWait(t *testing.T) {
	t.Parallel()
	w := send(t, serving(failing(flow.ErrWaiting)), "POST", "/register/sample", "")
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, "10", w.Header().Get("Retry-After"))
	require.Contains(t, answerOf(t, w).Description, "wait already")
}
