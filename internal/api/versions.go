package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/definition"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/request"
)

// Definition is a definition as PUT takes it.
type Definition struct {
	json, yaml []byte
	version    int
}

// MarshalJSON writes it as it is.
func (d Definition) MarshalJSON() ([]byte, error) { return d.json, nil }

// Schema says where it is described.
func (Definition) Schema(huma.Registry) *huma.Schema {
	return definitionSchema()
}

func (d Definition) graph(string) string { return string(d.yaml) }

func (d Definition) header(h http.Header, _ *http.Request) { h.Set("ETag", etag(d.version)) }

func (a *API) getDefinition(ctx context.Context, in *WorkflowPath) (Definition, error) {
	id, err := in.id()
	if err != nil {
		return Definition{}, err
	}
	found, err := a.store.Definitions(ctx, []flow.WorkflowID{id})
	if err != nil {
		return Definition{}, err
	}
	w, there := found[id]
	if !there {
		return Definition{}, unknownWorkflow(id, flow.ErrNotFound)
	}
	if access.Of(ctx).Role < access.Admin {
		if w, err = definition.Masked(w); err != nil {
			return Definition{}, err
		}
	}
	d := Definition{version: w.Version}
	if d.json, err = definition.Format(definition.JSON, w); err == nil {
		d.yaml, err = definition.Format(definition.YAML, w)
	}
	return d, err
}

// WorkflowVersion is a definition that a workflow has, or has had.
type WorkflowVersion struct {
	Version     int        `json:"version"`
	Digest      *string    `json:"digest" doc:"The same for the same content."`
	AppliedTs   *timestamp `json:"appliedTs"`
	AppliedBy   string     `json:"appliedBy"`
	Application string     `json:"application" doc:"By way of what program."`
	Note        *string    `json:"note" doc:"Why."`
	Definition  object     `json:"definition" doc:"As GET /schema/workflow.json describes it, without secrets; null: the workflow was deleted."`
}

// VersionList is a part of the versions of a workflow.
type VersionList struct {
	Items      []WorkflowVersion `json:"items" nullable:"false"`
	NextCursor *string           `json:"nextCursor"`
}

func (l VersionList) header(h http.Header, r *http.Request) { linkNext(h, r, "cursor", l.NextCursor) }

func (a *API) listVersions(ctx context.Context, in *struct {
	WorkflowPath
	Limit  int `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"At most so many."`
	Cursor int `query:"cursor" minimum:"1" maximum:"2147483647" doc:"The nextCursor of the page before: versions before this one."`
},
) (VersionList, error) {
	id, err := in.id()
	if err != nil {
		return VersionList{}, err
	}
	versions, err := a.store.DefinitionVersions(ctx, id, in.Cursor, in.Limit+1)
	if err != nil {
		return VersionList{}, unknownWorkflow(id, err)
	}
	list := VersionList{Items: []WorkflowVersion{}}
	for i, v := range versions {
		if i == in.Limit {
			next := strconv.Itoa(versions[i-1].Version)
			list.NextCursor = &next
			break
		}
		item := WorkflowVersion{
			Version: v.Version, Digest: orNull(v.Digest), AppliedTs: stamp(v.AppliedAt), AppliedBy: v.AppliedBy,
			Application: v.Application, Note: orNull(v.Note),
		}
		if v.Definition != nil {
			text, err := maskedDefinition(*v.Definition)
			if err != nil {
				return VersionList{}, fmt.Errorf("version %d of workflow %q: %w", v.Version, request.ShortID(string(id)), err)
			}
			item.Definition = object(text)
		}
		list.Items = append(list.Items, item)
	}
	return list, nil
}

func maskedDefinition(w flow.Definition) ([]byte, error) {
	masked, err := definition.Masked(w)
	if err != nil {
		return nil, err
	}
	return definition.Format(definition.JSON, masked)
}

func (l VersionList) table() table {
	t := table{columns: []string{"version", "applied", "by", "with", "note"}, numbers: []int{0}}
	for _, v := range l.Items {
		note := orZero(v.Note)
		if v.Definition == nil {
			note = strings.TrimSpace("deleted " + note)
		}
		t.add(v.Version, at(v.AppliedTs), v.AppliedBy, v.Application, note)
	}
	return t
}

// schemaDocument is the JSON schema of definitions.
type schemaDocument struct{}

// MarshalJSON writes it as it is.
func (schemaDocument) MarshalJSON() ([]byte, error) { return definition.Schema, nil }

// Schema says that it is a schema.
func (schemaDocument) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

func (a *API) getWorkflowSchema(context.Context, *struct{}) (schemaDocument, error) {
	return schemaDocument{}, nil
}

// definitionSchema is a definition in the document, in outline.
func definitionSchema() *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, Description: "As GET /schema/workflow.json describes it.", AdditionalProperties: true,
		Properties: map[string]*huma.Schema{
			"taskId": {Type: huma.TypeString}, "description": {Type: huma.TypeString},
			"maxRunningFlows": {Type: huma.TypeInteger}, "maxRunningTasks": {Type: huma.TypeInteger},
			"tasks": {Type: huma.TypeArray, Items: &huma.Schema{
				Type: huma.TypeObject, AdditionalProperties: true,
				Description: "seq, title, description, program, parameters, dependsOn, priority, maxAttempts, retryDelay, timeout, onLost, runIf",
			}},
		},
	}
}
