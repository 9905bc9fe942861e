package register

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// answer answers POST /callback/{task_flow_id}/{task_exec_seq}?token=…, by which somebody
// whom a task has asked brings the result. The token is all that he needs to have.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) error {
	key, err := taskKey(r)
	if err != nil {
		return err
	}
	body, err := readAnswer(w, r)
	if err != nil {
		return err
	}
	answered, err := s.store.Answer(r.Context(), key, flow.HashCallback(r.URL.Query().Get("token")), string(body))
	problem.Answered(r.Context(), err)
	switch {
	case errors.Is(err, flow.ErrNotFound):
		return problem.CallbackNotFound.Because("no task waits for this call: the token is wrong, or the task has gone on, " +
			"since it was answered, ran out of time or was changed by hand")
	case err != nil:
		return fmt.Errorf("answer task %s: %w", key, err)
	case answered == flow.AnswerRepeated:
		return problem.CallbackAnswered.Because("this task has an answer already: it was called before")
	case answered == flow.AnswerLate:
		return problem.CallbackLate.Because("this task does not wait any more: it was stopped")
	}
	s.log.InfoContext(r.Context(), "task answered", "flow", key.Flow, "seq", key.Seq, "request", exchangeOf(r).id)
	problem.WriteJSON(w, http.StatusAccepted, answerJSON{"accepted", string(key.Flow), key.Seq})
	return nil
}

// answerJSON says that a task goes on.
type answerJSON struct {
	Status      string `json:"status"`
	TaskFlowID  string `json:"taskFlowId"`
	TaskExecSeq int    `json:"taskExecSeq"`
}

func taskKey(r *http.Request) (flow.TaskKey, error) {
	id, err := request.ID(mux.Vars(r)["task_flow_id"])
	if err != nil {
		return flow.TaskKey{}, err
	}
	seq, err := strconv.ParseInt(mux.Vars(r)["task_exec_seq"], 10, 32)
	if err != nil {
		return flow.TaskKey{}, problem.MalformedPath.Because("the last part of the path must be a task_exec_seq, a whole number")
	}
	return flow.TaskKey{Flow: flow.ID(id), Seq: int(seq)}, nil
}

// maxAnswer leaves an output some room for what stands beside the answer.
const maxAnswer = flow.MaxOutput - 1<<10

// readAnswer reads the result: JSON that an output can be made of. No body is null.
func readAnswer(w http.ResponseWriter, r *http.Request) (json.RawMessage, error) {
	text, err := request.ReadAll(w, r)
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return json.RawMessage("null"), nil
	}
	if len(text) > maxAnswer {
		return nil, problem.BodyTooLarge.Because("the result has %d bytes, and %d are allowed: store it elsewhere and send where", len(text), maxAnswer)
	}
	if err := request.Check(text, `{"rows": 7}, or {"error": "why not"}`); err != nil {
		return nil, err
	}
	if err := request.Numbers(text); err != nil {
		return nil, err
	}
	return text, nil
}

// isCallback reports whether a request brings a result, and its own token says that it may.
func isCallback(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.URL.EscapedPath(), "/callback/")
}
