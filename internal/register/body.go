package register

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// registerBody is the body of a registration. Unknown fields are ignored, and the answer says so.
type registerBody struct {
	TaskID       string          `json:"taskId"`
	Parameters   json.RawMessage `json:"parameters"`
	Priority     *int            `json:"priority"`
	Note         string          `json:"note"`
	RegisteredBy string          `json:"registeredBy"`

	ignored []string
}

// known are its fields, which count in any case of their letters.
var known = []string{"taskId", "parameters", "priority", "note", "registeredBy"}

// maxIgnored limits how many unknown fields an answer names.
const maxIgnored = 10

// unknown returns the names of fields in an object that mean nothing to us.
func unknown(object []byte) []string {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(object, &fields) // it was read before
	var names []string
	for name := range fields {
		if !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			names = append(names, problem.Cut(name, 40))
		}
	}
	slices.Sort(names)
	return names[:min(len(names), maxIgnored)]
}

// readBody reads a request's body as JSON, whatever its Content-Type says: curl -d
// calls everything a form. Where it is optional, there may be none.
func readBody(w http.ResponseWriter, r *http.Request, optional bool) (registerBody, error) {
	var body registerBody
	text, err := request.ReadAll(w, r)
	if err != nil {
		return body, err
	}
	if optional && len(bytes.TrimSpace(text)) == 0 {
		return body, nil
	}
	if err := request.Check(text, request.Example); err != nil {
		return body, err
	}
	err = json.Unmarshal(text, &body)
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &typed) && typed.Field == "":
		return body, problem.MalformedBody.Because("the body must be a JSON object, as in %s", request.Example)
	case errors.As(err, &typed):
		return body, problem.InvalidValue.Because("%s must be %s, not a JSON %s", typed.Field, wanted(typed), typed.Value)
	case err != nil:
		return body, problem.MalformedBody.Because("the body cannot be read as JSON; send for example %s", request.Example)
	case !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")): // null fits every type
		return body, problem.MalformedBody.Because("the body must be a JSON object, as in %s", request.Example)
	}
	body.ignored = unknown(text)
	return body, nil
}

// wanted says in a reader's words what a field must be.
func wanted(e *json.UnmarshalTypeError) string {
	if e.Field == "priority" {
		return "a whole number from " + strconv.Itoa(flow.MinPriority) + " to " + strconv.Itoa(flow.MaxPriority)
	}
	return "a string"
}
