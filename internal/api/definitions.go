package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/definition"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

func (a *API) addDefinitions() {
	const workflow = "/workflows/{taskId}"
	add(a, operation{
		id: "apply-workflows", method: http.MethodPost, path: "/workflows", tag: tagWorkflows, need: access.Admin, formats: asText,
		summary: "Make workflows what definitions say, all of them or none",
		text:    "The body is YAML, of one or several documents, or JSON, an object or a list, as GET /schema/workflow.json describes it.",
	}, a.applyWorkflows)
	add(a, operation{
		id: "put-workflow", method: http.MethodPut, path: workflow, tag: tagWorkflows, need: access.Admin, formats: asText,
		summary: "Make a workflow what a definition says",
		text: "The body is YAML or JSON, as GET /schema/workflow.json describes it; taskId may be left out. With `If-Match`, the ETag " +
			"of what it is meant to replace, it replaces nothing else, and with `If-None-Match: *` nothing at all.",
	}, a.putWorkflow)
	add(a, operation{
		id: "delete-workflow", method: http.MethodDelete, path: workflow, tag: tagWorkflows, need: access.Admin, formats: asText,
		summary: "Delete a workflow", text: "Its flows go on, and its versions stay.",
	}, a.deleteWorkflow)
	add(a, operation{
		id: "get-definition", method: http.MethodGet, path: workflow + "/definition", tag: tagWorkflows, need: access.Reader, formats: []string{"json", "yaml"},
		summary: "A definition as PUT takes it", text: "For admins, who may do that; to others what looks like a secret is `***`.",
	}, a.getDefinition)
	add(a, operation{
		id: "list-versions", method: http.MethodGet, path: workflow + "/versions", tag: tagWorkflows, need: access.Reader, formats: asLists,
		summary: "The definitions that a workflow has had, the latest first",
		text:    "Every change makes one, whoever made it and with whatever. A flow's `workflowVersion` is the one that it was registered with.",
	}, a.listVersions)
	add(a, operation{
		id: "get-workflow-schema", method: http.MethodGet, path: "/schema/workflow.json", tag: tagWorkflows, need: access.Reader,
		summary: "The JSON schema of definitions",
	}, a.getWorkflowSchema)
	paths := a.huma.OpenAPI().Paths
	for _, op := range []*huma.Operation{paths[Prefix+"workflows"].Post, paths[strings.TrimSuffix(Prefix, "/")+workflow].Put} {
		op.RequestBody.Content["application/json"] = &huma.MediaType{Schema: definitionSchema()}
	}
}

// EditTerms are what every edit of definitions can be told.
type EditTerms struct {
	DryRun bool   `query:"dryRun" doc:"Change nothing; the answer is the same."`
	Note   string `query:"note" maxLength:"2000" doc:"Why, kept with the new version."`
}

// EditedWorkflow is what became of a workflow.
type EditedWorkflow struct {
	DryRun  bool               `json:"dryRun"`
	TaskID  string             `json:"taskId"`
	What    string             `json:"what" enum:"created,changed,deleted,unchanged"`
	Version *int               `json:"version" doc:"Of what there is now; null if there is none."`
	Changes []DefinitionChange `json:"changes" nullable:"false"`

	edited flow.EditedDefinition
}

// DefinitionChange is one difference, in the words of definitions.
type DefinitionChange struct {
	What  string  `json:"what" enum:"added,removed,changed"`
	Seq   *int    `json:"seq" doc:"The task; null: the workflow as a whole."`
	Title *string `json:"title" doc:"Of the task."`
	Field *string `json:"field" doc:"As in parameters.URL; null: the task as a whole."`
	Old   value   `json:"old"`
	New   value   `json:"new"`
}

// EditedWorkflows is what became of several.
type EditedWorkflows struct {
	DryRun bool             `json:"dryRun"`
	Items  []EditedWorkflow `json:"items" nullable:"false"`
}

func (a *API) applyWorkflows(ctx context.Context, in *struct {
	EditTerms
	Prune      bool   `query:"prune" doc:"Delete the workflows that are not in the body."`
	AnyProgram bool   `query:"anyProgram" doc:"Take programs that are known neither here nor to a watcher that runs."`
	RawBody    []byte `contentType:"application/yaml"`
},
) (EditedWorkflows, error) {
	sources, problems := definition.Parse(bodyName, in.RawBody)
	edit := flow.DefinitionEdit{Prune: in.Prune}
	for _, s := range sources {
		edit.Put = append(edit.Put, s.Definition)
	}
	if err := a.checkDefinitions(ctx, sources, problems, in.AnyProgram); err != nil {
		return EditedWorkflows{}, err
	}
	if len(sources) == 0 { // and prune would delete everything
		return EditedWorkflows{}, problem.WorkflowBroken.Because("there is no workflow in the body")
	}
	edited, err := a.edit(ctx, in.EditTerms, edit)
	return EditedWorkflows{in.DryRun, edited}, err
}

type putWorkflowInput struct {
	WorkflowPath
	EditTerms
	AnyProgram  bool   `query:"anyProgram" doc:"Take programs that are known neither here nor to a watcher that runs."`
	IfMatch     string `header:"If-Match" maxLength:"40" doc:"The ETag of what it replaces."`
	IfNoneMatch string `header:"If-None-Match" maxLength:"40" doc:"*: only if there is none."`
	RawBody     []byte `contentType:"application/yaml"`
}

func (a *API) putWorkflow(ctx context.Context, in *putWorkflowInput) (EditedWorkflow, error) {
	id, err := in.id()
	if err != nil {
		return EditedWorkflow{}, err
	}
	edit := flow.DefinitionEdit{}
	if edit.Expect, err = expected(ctx, id, in.IfMatch, in.IfNoneMatch); err != nil {
		return EditedWorkflow{}, err
	}
	source, problems := definition.ParseOne(bodyName, in.RawBody, id)
	if err := a.checkDefinitions(ctx, []definition.Source{source}, problems, in.AnyProgram); err != nil {
		return EditedWorkflow{}, err
	}
	edit.Put = []flow.Definition{source.Definition}
	return a.editOne(ctx, in.EditTerms, edit, id)
}

func (a *API) deleteWorkflow(ctx context.Context, in *struct {
	WorkflowPath
	EditTerms
	IfMatch string `header:"If-Match" maxLength:"40" doc:"The ETag of what is deleted."`
},
) (EditedWorkflow, error) {
	id, err := in.id()
	if err != nil {
		return EditedWorkflow{}, err
	}
	edit := flow.DefinitionEdit{Delete: []flow.WorkflowID{id}}
	if edit.Expect, err = expected(ctx, id, in.IfMatch, ""); err != nil {
		return EditedWorkflow{}, err
	}
	return a.editOne(ctx, in.EditTerms, edit, id)
}

// bodyName is what the places of mistakes are in.
const bodyName = "body"

// checkDefinitions answers every mistake, with its place.
func (a *API) checkDefinitions(ctx context.Context, sources []definition.Source, problems definition.Problems, anyProgram bool) error {
	if len(problems) == 0 || len(sources) > 1 {
		elsewhere, err := a.store.WatcherPrograms(ctx)
		if err != nil {
			return err
		}
		for _, s := range sources {
			for _, t := range s.Tasks {
				if anyProgram {
					elsewhere = append(elsewhere, t.Program)
				}
			}
		}
		problems = append(problems, definition.Check(sources, a.cfg.Checks, elsewhere)...)
	}
	if len(problems) == 0 {
		return nil
	}
	problems.Sort()
	text := problems[0].String()
	if more := len(problems) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	f := problem.WorkflowBroken.Because("%s", text)
	for _, p := range problems[:min(len(problems), 100)] {
		f.Extra.Errors = append(f.Extra.Errors, problem.FieldError{
			Location: fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column), Message: problem.Cut(p.Message, 500),
		})
	}
	return f
}

// editOne is an edit of one workflow.
func (a *API) editOne(ctx context.Context, terms EditTerms, e flow.DefinitionEdit, id flow.WorkflowID) (EditedWorkflow, error) {
	edited, err := a.edit(ctx, terms, e)
	if err != nil {
		return EditedWorkflow{}, err
	}
	if len(edited) == 0 {
		return EditedWorkflow{}, unknownWorkflow(id, flow.ErrNotFound)
	}
	return edited[0], nil
}

func (a *API) edit(ctx context.Context, terms EditTerms, e flow.DefinitionEdit) ([]EditedWorkflow, error) {
	if v := viewOf(ctx); v.asks("dryRun") && v.query.Get("dryRun") == "" { // huma takes it for none
		return nil, problem.InvalidFilter.Because("dryRun: must be true or false, as in dryRun=true")
	}
	e.Actor, e.DryRun, e.Note = access.Of(ctx).Name, terms.DryRun, terms.Note
	edited, err := a.store.EditDefinitions(ctx, e)
	if other, ok := errors.AsType[*flow.VersionError](err); ok {
		return nil, problem.VersionChanged.Because("%s", other)
	}
	if errors.Is(err, flow.ErrNotPermitted) {
		return nil, problem.ReadOnly.Because("the database does not let this register change definitions; use register apply, with a login that may")
	}
	if err != nil {
		return nil, err
	}
	report, err := definition.Report(edited)
	if err != nil {
		return nil, err
	}
	answers := make([]EditedWorkflow, len(report))
	for i, r := range report {
		answers[i] = EditedWorkflow{
			DryRun: terms.DryRun, TaskID: string(r.TaskID), What: r.What, Version: orNull(r.Version),
			Changes: newDefinitionChanges(r.Changes), edited: edited[i],
		}
		if !terms.DryRun && r.What != "unchanged" {
			a.log.InfoContext(ctx, "definition edited", "task", r.TaskID, "what", r.What, "version", r.Version, "by", e.Actor,
				"request", problem.RequestID(ctx))
		}
	}
	return answers, nil
}

func newDefinitionChanges(changes []definition.Change) []DefinitionChange {
	list := make([]DefinitionChange, len(changes))
	for i, c := range changes {
		list[i] = DefinitionChange{
			What: c.What, Seq: orNull(c.Seq), Title: orNull(c.Title), Field: orNull(c.Field), Old: value(c.Old), New: value(c.New),
		}
	}
	return list
}

func (e EditedWorkflow) text(view) string {
	return EditedWorkflows{e.DryRun, []EditedWorkflow{e}}.text(view{})
}

// header has the new version, for the next edit.
func (e EditedWorkflow) header(h http.Header, _ *http.Request) {
	if e.Version != nil && !e.DryRun {
		h.Set("ETag", etag(*e.Version))
	}
}

func (e EditedWorkflows) text(view) string {
	edited := make([]flow.EditedDefinition, len(e.Items))
	for i, item := range e.Items {
		edited[i] = item.edited
	}
	var b strings.Builder
	if err := definition.WriteText(&b, e.DryRun, edited); err != nil {
		return err.Error() + "\n" // it was reported once already, so that there is none
	}
	return b.String()
}

func etag(version int) string { return `"` + strconv.Itoa(version) + `"` }

// expected reads the conditions of an edit. An empty one is refused: whoever sends it counts on a
// protection that would not be there.
func expected(ctx context.Context, id flow.WorkflowID, match, noneMatch string) (map[flow.WorkflowID]int, error) {
	empty := func(name string) bool {
		values := headerOf(ctx).Values(name)
		return len(values) > 0 && values[0] == ""
	}
	switch {
	case empty("If-Match"), empty("If-None-Match"):
		return nil, problem.MalformedHeader.Because("If-Match and If-None-Match must not be empty")
	case match != "" && noneMatch != "":
		return nil, problem.MalformedHeader.Because("If-Match and If-None-Match cannot both be there")
	case noneMatch == "*":
		return map[flow.WorkflowID]int{id: 0}, nil
	case noneMatch != "":
		return nil, problem.MalformedHeader.Because("If-None-Match must be *: only if there is none")
	case match == "":
		return nil, nil
	case match == "*":
		return map[flow.WorkflowID]int{id: flow.AnyVersion}, nil
	}
	version, err := strconv.Atoi(strings.Trim(strings.TrimPrefix(match, "W/"), `"`))
	if err != nil || version < 1 {
		return nil, problem.MalformedHeader.Because("If-Match must be the ETag of a workflow, as in \"7\"")
	}
	return map[flow.WorkflowID]int{id: version}, nil
}
