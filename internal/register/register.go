package register

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// register answers POST /register and POST /register/{task_id}.
func (s *Server) register(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	request, err := s.readRegistration(w, r)
	if err != nil {
		return err
	}
	f, err := s.store.Register(r.Context(), request)
	s.answered(r, err)
	if errors.Is(err, flow.ErrNotFound) {
		return workflowNotFound.because("no tasks registered") // the original's words
	}
	if err != nil {
		return fmt.Errorf("register workflow %q: %w", request.WorkflowID, err)
	}
	s.log.InfoContext(r.Context(), "flow registered", "flow", f.ID, "task", f.WorkflowID,
		"replayed", f.Replayed, "by", request.RegisteredBy,
		"took", time.Since(start).Round(time.Microsecond), "request", exchangeOf(r).id)
	w.Header().Set("Location", "/api/v1/flows/"+url.PathEscape(string(f.ID)))
	if f.Replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	writeJSON(w, http.StatusCreated, registerAnswer{
		Status: "succeeded", TaskID: string(f.WorkflowID), TaskFlowID: string(f.ID),
	})
	return nil
}

// readRegistration reads and checks what a request asks for.
func (s *Server) readRegistration(w http.ResponseWriter, r *http.Request) (flow.Registration, error) {
	none := flow.Registration{}
	inPath, err := pathID(r, "task_id")
	if err != nil {
		return none, err
	}
	x := exchangeOf(r)
	x.task = cut(inPath, maxShownID)
	body, err := readBody(w, r, inPath != "")
	if err != nil {
		return none, err
	}
	if inPath == "" {
		x.task = cut(body.TaskID, maxShownID)
	}
	id, err := workflowID(inPath, body.TaskID)
	if err != nil {
		return none, err
	}
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return none, err
	}
	parameters, err := canonicalParameters(body.Parameters)
	if err != nil {
		return none, err
	}
	if err = body.check(); err != nil {
		return none, err
	}
	// Made before the store is called: when its answer is lost, it can look whether
	// the flow is there.
	made, err := uuid.NewV7()
	if err != nil {
		return none, fmt.Errorf("make a flow's id: %w", err)
	}
	caller := access.Of(r.Context())
	request := flow.Registration{
		FlowID:         flow.ID(made.String()),
		WorkflowID:     id,
		Parameters:     parameters,
		Priority:       body.Priority,
		RegisteredBy:   caller.Registers(body.RegisteredBy),
		Note:           body.Note,
		IdempotencyKey: caller.Key(key),
	}
	if key != "" {
		request.Fingerprint = fingerprint(request)
	}
	return request, nil
}

// maxShownID limits the bytes of an id that is repeated in an answer: a legal one has
// fewer.
const maxShownID = 4 * flow.MaxWorkflowID

// pathID returns an id of the path, unescaped once; empty if the route has none.
func pathID(r *http.Request, name string) (string, error) {
	id, err := url.PathUnescape(mux.Vars(r)[name])
	if err != nil || !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return "", malformedPath.because("the id in the path must be percent-escaped UTF-8 without U+0000")
	}
	return id, nil
}

// workflowID returns the id that path and body name.
func workflowID(inPath, inBody string) (flow.WorkflowID, error) {
	id := inPath
	if id == "" {
		id = inBody
	}
	switch {
	case id == "":
		return "", invalidValue.because("taskId is missing: it names the workflow, as in %s", example)
	case inBody != "" && inBody != id:
		return "", invalidValue.because("the path names workflow %q and the body %q: use one of them",
			cut(inPath, maxShownID), cut(inBody, maxShownID))
	case utf8.RuneCountInString(id) > flow.MaxWorkflowID:
		return "", invalidValue.because("taskId is longer than %d characters", flow.MaxWorkflowID)
	}
	return flow.WorkflowID(id), nil
}

const maxKey = 200 // characters of an Idempotency-Key

// idempotencyKey returns the key of a request; empty if it has none. An empty header is
// refused: whoever sends one counts on a protection that would not be there.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	n := utf8.RuneCountInString(key)
	printable := utf8.ValidString(key) && !strings.ContainsFunc(key, func(c rune) bool { return !unicode.IsPrint(c) })
	if len(values) > 1 || n == 0 || n > maxKey || !printable {
		return "", malformedHeader.because("Idempotency-Key must be one value of 1 to %d printable characters", maxKey)
	}
	return key, nil
}
