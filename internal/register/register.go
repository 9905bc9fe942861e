package register

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// register answers POST /register and POST /register/{task_id}.
func (s *Server) register(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	asked, err := s.readRegistration(w, r)
	if err != nil {
		return err
	}
	f, err := s.store.Register(r.Context(), asked)
	exchangeOf(r).Answered(r.Context(), err)
	if errors.Is(err, flow.ErrNotFound) {
		return problem.WorkflowNotFound.Because("no tasks registered") // the original's words
	}
	if err != nil {
		return fmt.Errorf("register workflow %q: %w", asked.WorkflowID, err)
	}
	s.log.InfoContext(r.Context(), "flow registered", "flow", f.ID, "task", f.WorkflowID,
		"replayed", f.Replayed, "by", asked.RegisteredBy,
		"took", time.Since(start).Round(time.Microsecond), "request", exchangeOf(r).id)
	w.Header().Set("Location", s.cfg.BasePath+"/api/v1/flows/"+url.PathEscape(string(f.ID)))
	if f.Replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	problem.WriteJSON(w, http.StatusCreated, registerAnswer{
		Status: "succeeded", TaskID: string(f.WorkflowID), TaskFlowID: string(f.ID), Ignored: exchangeOf(r).ignored,
	})
	return nil
}

// readRegistration reads and checks what a request asks for.
func (s *Server) readRegistration(w http.ResponseWriter, r *http.Request) (flow.Registration, error) {
	none := flow.Registration{}
	inPath, err := request.ID(mux.Vars(r)["task_id"])
	if err != nil {
		return none, err
	}
	x := exchangeOf(r)
	x.task = request.ShortID(inPath)
	body, err := readBody(w, r, inPath != "")
	if err != nil {
		return none, err
	}
	x.ignored = body.ignored
	id := inPath
	if inPath == "" {
		id = body.TaskID
		x.task = request.ShortID(id)
	}
	if body.TaskID != "" && body.TaskID != id {
		return none, problem.InvalidValue.Because("the path names workflow %q and the body %q: use one of them",
			request.ShortID(inPath), request.ShortID(body.TaskID))
	}
	return request.Registration{
		TaskID: id, Parameters: body.Parameters, Priority: body.Priority, Note: body.Note, RegisteredBy: body.RegisteredBy,
	}.Flow(r.Context(), r.Header)
}
