// Package api is /api/v1: what people and programs read of Flower, and what they do to it,
// as REST with JSON. The same room has the document that describes it (OpenAPI 3.1), and a
// page that shows that.
//
// An operation is a function from its input to its answer, and a line in the table of
// routes. huma reads and checks the input by the types, and makes the document of them;
// what goes out is written here: JSON, text for a terminal, CSV. A name in JSON is the
// column's name in camelCase, a value is the database's own word.
//
// The server that is outside of this (internal/register) has asked who is calling, and
// answers the errors.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"
	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/definition"
	"github.com/d-tsuji/flower/internal/flow"
)

// Store is what this package needs of the database. Errors are those of package flow;
// all others are unexpected.
type Store interface {
	Register(ctx context.Context, r flow.Registration) (flow.Flow, error)
	Act(ctx context.Context, a flow.Action) (flow.Effect, error)
	ActAll(ctx context.Context, a flow.BulkAction) (flow.BulkEffect, error)

	Flows(ctx context.Context, f flow.Filter, after flow.Position, limit int) (flow.Page, error)
	Count(ctx context.Context, f flow.Filter) (flow.Count, error)
	FindFlow(ctx context.Context, prefix string, most int) ([]flow.ID, error)
	Flow(ctx context.Context, id flow.ID) (flow.State, error)
	FlowStatus(ctx context.Context, id flow.ID) (string, error)
	Task(ctx context.Context, key flow.TaskKey) (flow.State, error)
	Attempts(ctx context.Context, key flow.TaskKey) ([]flow.Attempt, error)
	Log(ctx context.Context, f flow.LogFilter) (flow.LogPage, error)

	Workflows(ctx context.Context, after flow.WorkflowID, text string, limit, last int) ([]flow.WorkflowState, bool, error)
	WorkflowIDs(ctx context.Context, limit int) ([]flow.WorkflowID, error)
	Workflow(ctx context.Context, id flow.WorkflowID, last int) (flow.WorkflowState, error)
	WorkflowStats(ctx context.Context, id flow.WorkflowID, window time.Duration) (flow.WorkflowStats, error)

	Definitions(ctx context.Context, ids []flow.WorkflowID) (map[flow.WorkflowID]flow.Definition, error)
	DefinitionVersions(ctx context.Context, id flow.WorkflowID, before, limit int) ([]flow.DefinitionVersion, error)
	EditDefinitions(ctx context.Context, e flow.DefinitionEdit) ([]flow.EditedDefinition, error)
	WatcherPrograms(ctx context.Context) ([]string, error)

	FailureGroups(ctx context.Context, f flow.FailureFilter) (flow.FailureGroups, error)
	Queue(ctx context.Context, workflow flow.WorkflowID, limit int) ([]flow.QueuedTask, time.Time, error)
	Running(ctx context.Context, limit int) ([]flow.RunningTask, error)
	Watchers(ctx context.Context) ([]flow.WatcherState, error)
	Events(ctx context.Context, f flow.EventFilter) (flow.EventPage, error)
	Stats(ctx context.Context, window, bucket time.Duration) (flow.Stats, error)
	Version(ctx context.Context) (flow.Version, error)
	Now(ctx context.Context) (time.Time, error)
}

// Config says what the API knows beside the database.
type Config struct {
	Version  string
	Programs []Program
	Checks   definition.Programs // the same, to check definitions by
	BasePath string              // before the paths in answers, as in "/flower"; empty is none
	Access   *access.Control     // knows proxies that callers reach by TLS; nil: there are none
}

// Program is what a task can run.
type Program struct {
	Name string `json:"name"`
	// Needs is the setting that a watcher needs to run it; null: it runs it in any case.
	Needs      *string     `json:"needs" doc:"The setting that a watcher needs to run it; null is none."`
	Parameters []Parameter `json:"parameters" nullable:"false"`
}

// Parameter is what a program takes.
type Parameter struct {
	Name        string          `json:"name"`
	Type        string          `json:"type"`
	Required    bool            `json:"required"`
	Default     json.RawMessage `json:"default" doc:"Taken where the task has none; null is none."`
	Description string          `json:"description"`
	Fixed       bool            `json:"fixed" doc:"A request cannot replace what the definition says."`
	Public      bool            `json:"public" doc:"The value is kept or shown, and cannot have a secret in it."`
	OneOf       []string        `json:"oneOf" nullable:"false" doc:"What it can be; empty is anything."`
	Unit        *string         `json:"unit"`
	Min         *float64        `json:"min"`
	Max         *float64        `json:"max"`
}

// API serves /api/v1, and its description.
type API struct {
	cfg    Config
	store  Store
	log    *slog.Logger
	router *mux.Router
	huma   huma.API
	routes []operation
	shared sharedWaits
	json   []byte // the document
	yaml   []byte
	page   []byte // the document as HTML
}

// New returns the API.
func New(cfg Config, store Store, log *slog.Logger) *API {
	replaceErrors()
	a := &API{cfg: cfg, store: store, log: log.With("component", "api")}
	// A path is taken as it was sent: ids may hold anything, escaped slashes too.
	a.router = mux.NewRouter().UseEncodedPath().SkipClean(true)
	a.router.NotFoundHandler = http.HandlerFunc(a.notServed)
	a.router.MethodNotAllowedHandler = a.router.NotFoundHandler
	config := huma.DefaultConfig("Flower", "v1")
	config.DocsPath, config.OpenAPIPath, config.SchemasPath = "", "", "" // its page loads from elsewhere
	config.CreateHooks = nil                                             // it would add $schema to every answer
	config.RejectUnknownQueryParameters = true
	a.huma = humamux.New(a.router, config)
	a.addRoutes()
	a.describe()
	return a
}

func (a *API) addRoutes() {
	a.addFlows()
	a.addTasks()
	a.addActions()
	a.addWorkflows()
	a.addDefinitions()
	a.addLooks()
}
