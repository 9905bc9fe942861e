package api

import (
	"context"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/problem"
)

// operation is one line of the API.
type operation struct {
	id, method, path string
	tag, summary     string
	text             string // more about it
	need             access.Role
	status           int      // of success; 0 is 200
	formats          []string // of the answer, the usual one first; none is JSON alone
	takesKey         bool     // an Idempotency-Key
}

// The tags, which are the parts of the document.
const (
	tagFlows     = "Flows"
	tagTasks     = "Tasks"
	tagWorkflows = "Workflows"
	tagLook      = "State"
	tagAct       = "Actions"
)

var (
	asLists = []string{"json", "text", "csv"}
	asText  = []string{"json", "text"}
)

// What an answer may be, beside a value that has a form in JSON.
type (
	texter   interface{ text(v view) string }       // as text for a terminal
	tabler   interface{ table() table }             // as a table: text and CSV
	grapher  interface{ graph(lang string) string } // as DOT or Mermaid
	headered interface {
		header(h http.Header, r *http.Request) // has headers of its own
	}
	statused interface{ code() int } // has another status than usual
)

const schemasKey = "schemas"

// add puts an operation into the router and into the document.
func add[I, O any](a *API, o operation, h func(ctx context.Context, in *I) (O, error)) {
	if len(o.formats) == 0 {
		o.formats = []string{"json"}
	}
	if o.status == 0 {
		o.status = http.StatusOK
	}
	a.routes = append(a.routes, o)
	schemas := a.huma.OpenAPI().Components.Schemas
	op := o.describe(schemas.Schema(reflect.TypeFor[O](), true, o.id), schemas.Schema(reflect.TypeFor[Problem](), true, ""))
	op.Metadata = map[string]any{schemasKey: schemas} // for errors
	huma.Register(a.huma, op, func(_ context.Context, in *I) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humamux.Unwrap(hc)
			if err := o.serve(w, r, func(ctx context.Context) (any, error) { return h(ctx, in) }); err != nil {
				problem.Fail(w, r, err)
			}
		}}, nil
	})
}

// serve asks whether the caller may, carries the operation out, and writes what it came to.
func (o operation) serve(w http.ResponseWriter, r *http.Request, h func(ctx context.Context) (any, error)) error {
	ctx := r.Context()
	if err := access.Require(ctx, o.need); err != nil {
		return err
	}
	v := viewOf(ctx)
	format, err := v.choose(o.formats)
	if err != nil {
		return err
	}
	answer, err := h(ctx)
	if err != nil {
		return err
	}
	if has, ok := answer.(headered); ok {
		has.header(w.Header(), r)
	}
	status := o.status
	if has, ok := answer.(statused); ok {
		status = has.code()
	}
	write(w, status, format, v, answer)
	return nil
}

func write(w http.ResponseWriter, status int, format string, v view, answer any) {
	var body string
	switch format {
	case "json":
		problem.WriteJSON(w, status, answer)
		return
	case "text":
		if t, ok := answer.(texter); ok {
			body = t.text(v)
		} else {
			body = answer.(tabler).table().text()
		}
	case "csv":
		body = answer.(tabler).table().csv()
	default:
		body = answer.(grapher).graph(format)
	}
	w.Header().Set("Content-Type", mediaTypes[format]+"; charset=utf-8")
	problem.Write(w, status, []byte(body))
}

// describe makes huma's description of an operation that answers with a schema.
func (o operation) describe(schema, failure *huma.Schema) huma.Operation {
	content := map[string]*huma.MediaType{}
	for _, f := range o.formats {
		content[mediaTypes[f]] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	}
	content["application/json"] = &huma.MediaType{Schema: schema}
	responses := map[string]*huma.Response{strconv.Itoa(o.status): {Description: http.StatusText(o.status), Content: content}}
	// One for all failures: each can answer most of them, and the code says which it is.
	responses["default"] = &huma.Response{Description: "A failure", Content: map[string]*huma.MediaType{problem.ContentType: {Schema: failure}}}
	return huma.Operation{
		OperationID: o.id, Method: o.method, Path: strings.TrimSuffix(Prefix, "/") + o.path,
		Tags: []string{o.tag}, Summary: o.summary, Description: o.description(),
		DefaultStatus: o.status, Responses: responses, Parameters: o.parameters(),
		MaxBodyBytes: -1, BodyReadTimeout: -1, // it is in memory already
	}
}

func (o operation) description() string {
	text := o.text
	if text != "" {
		text += "\n\n"
	}
	return text + "Needs the role " + o.need.String() + "."
}

// parameters are those that entry takes out of the query, and of the header.
func (o operation) parameters() []*huma.Param {
	var ps []*huma.Param
	if len(o.formats) > 1 {
		format := &huma.Schema{Type: huma.TypeString}
		for _, f := range o.formats {
			format.Enum = append(format.Enum, f)
		}
		ps = append(ps, &huma.Param{
			Name: "format", In: "query", Schema: format, Description: "How the answer is to look; without it Accept decides.",
		})
	}
	for _, f := range o.formats {
		if f == "text" {
			ps = append(ps, &huma.Param{
				Name: "ascii", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"1", "0"}}, Description: "1: no marks but ASCII's in text.",
			})
		}
	}
	if o.takesKey {
		ps = append(ps, &huma.Param{
			Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "Makes a repeated request safe: the same key gives the same answer, and nothing happens twice.",
		})
	}
	return ps
}
