package program

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Of an HTTPRequest with callback, the answer 202 means that the result comes later: the
// task pauses until somebody calls the URL that the request had with it, or until its
// time is up.
//
// A token of the URL is known to the database, as a hash, before it is sent: no call can
// come too early. One that comes before the answer 202 is kept with the task as well. A
// request that is sent again, since the watcher died or the attempt failed, has a new token
// and the same Idempotency-Key, and the old tokens stay good: whoever takes it for a
// repetition calls the URL of the first.

// Callbacks is what HTTPRequest needs for answers that come later.
type Callbacks interface {
	// ExpectCallback lets whoever has the token of a hash answer a running task. It
	// reports false if there is an answer; one that has failed it forgets.
	ExpectCallback(ctx context.Context, of flow.Task, hash string, failed bool) (bool, error)
}

const callbackHeader = "Flower-Callback"

// asked is what an attempt leaves for the next one.
type asked struct {
	Attempt int `json:"attempt"` // which has asked, or gone on waiting
}

func checkCallback(v Values) error {
	if field := v.String("callback_field"); field != "" {
		body := v.JSON("body")
		switch {
		case !v.Bool("callback") && !v.Open("callback"):
			return invalid("callback_field", "it is for a request with callback")
		case !v.Open("body") && body != nil && kindOf(body) != "an object":
			return invalid("callback_field", "it is a field of the body, which is "+kindOf(body)+", not an object")
		}
	}
	if v.Open("callback_timeout") {
		return nil
	}
	_, err := callbackTimeout(v)
	return err
}

func callbackTimeout(v Values) (time.Duration, error) {
	d, err := parseLength(v.String("callback_timeout"))
	if err == nil && d == 0 {
		err = errors.New("it must be longer than nothing")
	}
	if err != nil {
		return 0, invalid("callback_timeout", err.Error())
	}
	return d, nil
}

// ask sends a message whose result may come later, unless that was done before.
func (p httpRequest) ask(ctx context.Context, in Input, m message) (json.RawMessage, error) {
	pause := in.Task.Pause
	if pause == nil {
		pause = &flow.Pause{}
	}
	answer := pause.Answer
	if answer != nil {
		output, err := m.called(answer)
		// A failure is told once. Whoever has it done once more wants another answer.
		if err == nil || in.Task.Attempt == answer.Attempt+1 {
			return output, err
		}
	} else if pause.Callback {
		var last asked
		_ = json.Unmarshal(pause.State, &last) // what somebody has spoilt is as if it were not there
		switch early := in.Task.StartedAt.Before(pause.Until); {
		case early && last.Attempt > 0: // somebody was curious
			return nil, m.later(in, pause.Until)
		case last.Attempt == in.Task.Attempt-1:
			return nil, fmt.Errorf("%s %s: nobody has called back until %s", m.method, m.where(), pause.Until.UTC().Format("2006-01-02 15:04:05Z"))
		}
	}
	return p.askAnew(ctx, in, m, answer != nil)
}

// askAnew sends a message with a new token.
func (p httpRequest) askAnew(ctx context.Context, in Input, m message, failed bool) (json.RawMessage, error) {
	if p.callbackURL == "" {
		return nil, invalid("callback", "this watcher does not know where register can be called: start it with -callback-url (FLOWER_CALLBACK_URL), "+
			"as in http://flower.example.com:8000")
	}
	timeout, err := callbackTimeout(in.Params)
	if err != nil {
		return nil, err
	}
	until := in.Task.StartedAt.Add(timeout)
	m.token = rand.Text()
	expected, err := untilAvailable(ctx, func() (bool, error) {
		return p.callbacks.ExpectCallback(ctx, in.Task, flow.HashCallback(m.token), failed)
	})
	if err != nil {
		return nil, err
	}
	if !expected { // it has come just now; the next attempt finds it
		return nil, m.later(in, until)
	}
	m, err = m.withCallback(p.callbackAt(in.Task.TaskKey, m.token), in.Params.String("callback_field"))
	if err != nil {
		return nil, err
	}
	ready := m.expected
	m.expected = func(status int) bool { return status == http.StatusAccepted || ready(status) }
	status, body, err := p.exchange(ctx, m, in.Task)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusAccepted:
		in.Log.Info("waiting for a callback", "until", until)
		return nil, m.later(in, until)
	}
	return answerOutput(status, body), nil
}

// callbackAt is the URL with which whoever was asked answers. The token is in the query,
// which nobody logs.
func (p httpRequest) callbackAt(key flow.TaskKey, token string) string {
	return p.callbackURL + "/callback/" + url.PathEscape(string(key.Flow)) + "/" + strconv.Itoa(key.Seq) + "?token=" + token
}

// withCallback puts a URL into a message: into a header, and into a field of its body if
// there is one for it.
func (m message) withCallback(callback, field string) (message, error) {
	headers := map[string]string{callbackHeader: callback}
	maps.Copy(headers, m.headers)
	m.headers = headers
	if field == "" {
		return m, nil
	}
	body, err := members(m.body)
	if err != nil {
		return m, invalid("callback_field", "it is a field of the body, which is not an object")
	}
	merged := map[string]json.RawMessage{field: encode(callback)}
	for name, value := range body {
		if name != field {
			merged[name] = value
		}
	}
	m.body = encode(merged)
	return m, nil
}

// later is the pause until somebody calls.
func (m message) later(in Input, until time.Time) *flow.Pause {
	return &flow.Pause{
		Until: until, Callback: true, State: encode(asked{in.Task.Attempt}),
		Why: fmt.Sprintf("waits for the callback of %s %s", m.method, m.where()),
	}
}

// called is what a call came to: an output like that of a request that was answered at
// once, or the failure that it tells of, by an error that is not empty.
func (m message) called(answer *flow.Answer) (json.RawMessage, error) {
	body := []byte(answer.Body)
	var told struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &told) != nil { // no object
		told.Error = nil
	}
	switch string(told.Error) {
	case "", "null", "false", `""`:
		return answerOutput(http.StatusAccepted, body), nil
	}
	text := cut(readable(string(textOf(told.Error))), maxAnswerInError)
	return nil, fmt.Errorf("%s %s: it called back with an error: %s", m.method, m.where(), text)
}
