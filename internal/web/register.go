package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// registerView is the form that makes a flow.
type registerView struct {
	Workflow flow.WorkflowState
	Path     string
	Tasks    []definitionView
	Inputs   []inputView

	Parameters, Priority, Note string // what the form has
	ID                         string // of the flow, so that a double click makes one
	Why                        string // why this person may not do it
	Problem                    string // why it was not done just now
}

// definitionView is a task with its parameters, which those of the form go over.
type definitionView struct {
	Seq        int
	Title      string
	Program    string
	Parameters string
}

// inputView is a parameter of the request that the definition names in an expression.
type inputView struct {
	Name  string
	Tasks string // in which it is used
	Value string
}

// named finds parameters of the request in what a definition has: params.day, and
// params["a day"].
var named = regexp.MustCompile(`\bparams\.([A-Za-z_][A-Za-z0-9_]*)|\bparams\[\\?["']([^"'\\\]]+)\\?["']\]`)

// inputs lists them, in the order of the tasks.
func inputs(tasks []flow.TaskDefinition) []inputView {
	var list []inputView
	at := map[string]int{}
	for _, t := range tasks {
		mentioned := map[string]bool{}
		for _, m := range named.FindAllStringSubmatch(string(t.Parameters)+"\n"+t.RunIf, -1) {
			name := m[1] + m[2]
			if mentioned[name] {
				continue
			}
			mentioned[name] = true
			used := fmt.Sprintf("%d %s", t.Seq, clip(t.Title(), 40))
			if i, known := at[name]; known {
				list[i].Tasks += ", " + used
				continue
			}
			at[name] = len(list)
			list = append(list, inputView{Name: name, Tasks: used})
		}
	}
	return list
}

// showRegister is GET /workflows/{id}/register. With ?flow= the form begins with what that
// flow was registered with.
func (s *Site) showRegister(r *http.Request, sh *shell) (any, error) {
	id, err := pathID(r, "task_id")
	if err != nil {
		return nil, err
	}
	v, err := s.registerForm(r, flow.WorkflowID(id), sh)
	if err != nil {
		return nil, err
	}
	if again := r.URL.Query().Get("flow"); again != "" {
		state, err := s.store.Flow(r.Context(), flow.ID(again))
		if err != nil && !errors.Is(err, flow.ErrNotFound) {
			return nil, err
		}
		v.fill(state.Parameters)
		if strings.Contains(pretty(state.Parameters), `"***"`) {
			v.Problem = "Some of that flow's parameters are secret: put them in again."
		}
	}
	return v, nil
}

// fill puts the parameters of an earlier flow into the form: those that have a field of
// their own into that.
func (v *registerView) fill(parameters json.RawMessage) {
	rest, err := request.Decode[map[string]any](parameters)
	if err != nil {
		return
	}
	request.Mask(rest)
	for i := range v.Inputs {
		name := v.Inputs[i].Name
		value, ok := rest[name]
		if !ok {
			continue
		}
		delete(rest, name)
		text, isText := value.(string)
		if !isText {
			text = string(request.Compact(value))
		}
		v.Inputs[i].Value = text
	}
	v.Parameters = pretty(request.Compact(rest))
}

func (s *Site) registerForm(r *http.Request, id flow.WorkflowID, sh *shell) (registerView, error) {
	w, err := s.store.Workflow(r.Context(), id, 0)
	if errors.Is(err, flow.ErrNotFound) {
		return registerView{}, problem.WorkflowNotFound.Because("there is no workflow %q", id)
	}
	if err != nil {
		return registerView{}, err
	}
	v := registerView{
		Workflow: w, Path: workflowPath(id) + "/register", ID: uuid.Must(uuid.NewV7()).String(),
		Why: button{}.needs(sh.Who, access.Registrar).Why,
	}
	if v.Why == "" && len(w.Problems) > 0 {
		v.Why = "Its definition is broken: " + strings.Join(w.Problems, "; ")
	}
	tasks := slices.SortedFunc(slices.Values(w.Tasks), func(a, b flow.TaskDefinition) int { return a.Seq - b.Seq })
	v.Inputs = inputs(tasks)
	for _, t := range tasks {
		v.Tasks = append(v.Tasks, definitionView{t.Seq, t.Title(), t.Program, pretty(t.Parameters)})
	}
	sh.Title, sh.Active = "Register "+string(id), "Workflows"
	return v, nil
}

// register is POST /workflows/{id}/register. It goes on to the new flow's page.
func (s *Site) register(w http.ResponseWriter, r *http.Request) error {
	who := access.Of(r.Context())
	if err := who.Require(access.Registrar); err != nil {
		return err
	}
	id, err := pathID(r, "task_id")
	if err != nil {
		return err
	}
	registration, err := registrationOf(r, flow.WorkflowID(id))
	if err == nil {
		var made flow.Flow
		made, err = s.store.Register(r.Context(), registration)
		problem.Answered(r.Context(), err)
		if err == nil {
			s.log.InfoContext(r.Context(), "flow registered", "flow", made.ID, "task", id, "replayed", made.Replayed, "by", who.Name,
				"request", problem.RequestID(r.Context()))
			to := flowPath(made.ID)
			if made.Replayed {
				to = withDid(to, didBefore)
			}
			http.Redirect(w, r, s.cfg.BasePath+to, http.StatusSeeOther)
			return nil
		}
	}
	if errors.Is(err, flow.ErrNotFound) {
		return problem.WorkflowNotFound.Because("there is no workflow %q", id)
	}
	status, why := refusedForm(r, err)
	if why == "" {
		return err
	}
	sh := s.newShell(r)
	v, err := s.registerForm(r, flow.WorkflowID(id), &sh)
	if err != nil {
		return err
	}
	v.Problem = why
	v.Parameters, v.Priority, v.Note = r.PostForm.Get("parameters"), r.PostForm.Get("priority"), r.PostForm.Get("note")
	for i := range v.Inputs {
		v.Inputs[i].Value = r.PostForm.Get(inputPrefix + v.Inputs[i].Name)
	}
	s.send(w, r, s.render("register", status, view{sh, v}))
	return nil
}

// registrationOf reads the form. Its own key makes a form that is sent twice one flow.
func registrationOf(r *http.Request, id flow.WorkflowID) (flow.Registration, error) {
	g := request.Registration{TaskID: string(id), Note: strings.TrimSpace(r.PostForm.Get("note"))}
	var err error
	if g.Parameters, err = parametersOf(r.PostForm); err != nil {
		return flow.Registration{}, err
	}
	if text := strings.TrimSpace(r.PostForm.Get("priority")); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return flow.Registration{}, problem.InvalidValue.Because("the priority must be a number from %d to %d, smaller is more urgent; or empty",
				flow.MinPriority, flow.MaxPriority)
		}
		g.Priority = &n
	}
	header := http.Header{}
	if key := r.PostForm.Get("key"); key != "" {
		header.Set("Idempotency-Key", key)
	}
	return g.Flow(r.Context(), header)
}

// inputPrefix begins the names of the fields that are parameters.
const inputPrefix = "p."

// parametersOf reads the form's object, with the fields over it. What is typed into one of
// those is JSON if it can be read as that, and else text.
func parametersOf(form url.Values) (json.RawMessage, error) {
	parameters, err := object("Parameters", form.Get("parameters"))
	if err != nil {
		return nil, err
	}
	all := map[string]any{}
	if parameters != nil {
		if all, err = request.Decode[map[string]any](parameters); err != nil {
			return nil, err
		}
	}
	for key := range form {
		name, ok := strings.CutPrefix(key, inputPrefix)
		text := strings.TrimSpace(form.Get(key))
		if !ok || text == "" {
			continue
		}
		var value any = text
		if json.Valid([]byte(text)) {
			value = json.RawMessage(text)
		}
		all[name] = value
	}
	if len(all) == 0 {
		return parameters, nil
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return object("Parameters", string(text))
}
