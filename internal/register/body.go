package register

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/flow"
)

// example is shown where a body is no use.
const example = `{"taskId": "sample"}`

// Limits of a body's fields. PostgreSQL's numbers are not endless, and JSON's are.
const (
	maxDepth        = 100
	maxParameterKey = 200  // characters
	maxNote         = 2000 // characters
	maxRegisteredBy = 200  // characters
	maxNumber       = 1000 // digits and signs as written
)

// registerBody is the body of a registration. Unknown fields are ignored.
type registerBody struct {
	TaskID       string          `json:"taskId"`
	Parameters   json.RawMessage `json:"parameters"`
	Priority     *int            `json:"priority"`
	Note         string          `json:"note"`
	RegisteredBy string          `json:"registeredBy"`
}

// readBody reads a request's body as JSON, whatever its Content-Type says: curl -d
// calls everything a form. Where it is optional, there may be none.
func readBody(w http.ResponseWriter, r *http.Request, optional bool) (registerBody, error) {
	var body registerBody
	text, err := readAll(w, r)
	if err != nil {
		return body, err
	}
	if optional && len(bytes.TrimSpace(text)) == 0 {
		return body, nil
	}
	if bad := scan(text); bad != nil {
		return body, bad
	}
	err = json.Unmarshal(text, &body)
	var (
		syntax *json.SyntaxError
		typed  *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &syntax):
		at := int(syntax.Offset) - 1
		if cutOff(text) {
			at = len(text)
		}
		return body, malformedAt(text, at, syntax.Error())
	case errors.As(err, &typed) && typed.Field == "":
		return body, malformedBody.because("the body must be a JSON object, as in %s", example)
	case errors.As(err, &typed):
		return body, invalidValue.because("%s must be %s, not a JSON %s", typed.Field, wanted(typed), typed.Value)
	case err != nil:
		return body, malformedBody.because("the body cannot be read as JSON; send for example %s", example)
	case !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")): // null fits every type
		return body, malformedBody.because("the body must be a JSON object, as in %s", example)
	}
	return body, nil
}

// readAll returns the body's bytes.
func readAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := bodyTooLarge.because("the body is larger than 1 MiB (%d bytes)", maxBody)
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, bodyTooSlow.because("the body did not arrive within %s", readTimeout)
	case err != nil:
		return nil, malformedBody.because("the body ended early")
	}
	return text, nil
}

// cutOff reports whether a text that is no JSON is the beginning of some. Of a
// SyntaxError the offset alone does not tell that from a wrong last byte.
func cutOff(text []byte) bool {
	err := json.NewDecoder(bytes.NewReader(text)).Decode(new(json.RawMessage))
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// wanted says in a reader's words what a field must be.
func wanted(e *json.UnmarshalTypeError) string {
	if e.Field == "priority" {
		return "a whole number from " + strconv.Itoa(flow.MinPriority) + " to " + strconv.Itoa(flow.MaxPriority)
	}
	return "a string"
}

// check looks at the fields that have limits of their own.
func (b registerBody) check() error {
	switch {
	case b.Priority != nil && (*b.Priority < flow.MinPriority || *b.Priority > flow.MaxPriority):
		return invalidValue.because("priority is %d and must be from %d to %d (smaller is more urgent)",
			*b.Priority, flow.MinPriority, flow.MaxPriority)
	case utf8.RuneCountInString(b.Note) > maxNote:
		return invalidValue.because("note is longer than %d characters", maxNote)
	case utf8.RuneCountInString(b.RegisteredBy) > maxRegisteredBy:
		return invalidValue.because("registeredBy is longer than %d characters", maxRegisteredBy)
	}
	return nil
}

// canonicalParameters checks a request's parameters and returns them in the one form
// that all equal objects share: keys sorted, no blanks, of a doubled key the last. It
// returns nil if there are none.
func canonicalParameters(text json.RawMessage) (json.RawMessage, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // as written: a float64 would round large ids
	var parameters map[string]any
	if err := d.Decode(&parameters); err != nil {
		return nil, invalidValue.because(`parameters must be a JSON object, as in {"NAME": "value"}`)
	}
	if len(parameters) == 0 {
		return nil, nil
	}
	for _, key := range slices.Sorted(maps.Keys(parameters)) {
		if utf8.RuneCountInString(key) > maxParameterKey {
			return nil, invalidValue.because("parameters: the key %q… is longer than %d characters",
				cut(key, 40), maxParameterKey)
		}
		if !storable(parameters[key]) {
			return nil, invalidValue.because("parameters: %q has a number that is too large or too exact; "+
				"send it as a string", key)
		}
	}
	return compact(parameters), nil
}

// storable reports whether the database can hold every number in v.
func storable(v any) bool {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		underflow := f == 0 && strings.ContainsAny(mantissa(v.String()), "123456789")
		return err == nil && !math.IsInf(f, 0) && !underflow && len(v) <= maxNumber
	case []any:
		return !slices.ContainsFunc(v, func(item any) bool { return !storable(item) })
	case map[string]any:
		for _, item := range v {
			if !storable(item) {
				return false
			}
		}
	}
	return true
}

func mantissa(number string) string {
	m, _, _ := strings.Cut(strings.ToLower(number), "e")
	return m
}

// compact encodes a value that was decoded from JSON.
func compact(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("encode decoded JSON: " + err.Error())
	}
	return bytes.TrimSpace(b.Bytes())
}

// fingerprint tells whether two requests with one key ask for the same: the same
// workflow, parameters and priority.
func fingerprint(r flow.Registration) string {
	sum := sha256.Sum256(compact([]any{r.WorkflowID, r.Parameters, r.Priority}))
	return hex.EncodeToString(sum[:])
}
