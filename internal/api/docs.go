package api

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/d-tsuji/flower/internal/problem"
)

// describe finishes the document and makes its forms, before anything is served.
func (a *API) describe() {
	doc := a.huma.OpenAPI()
	doc.Info.Description = "Read what Flower has, and act on it. Errors are problem+json: programs go by `code`. Times are RFC 3339 in UTC, " +
		"ids are strings, lists go on at `nextCursor`. Values whose key looks like a secret's are `***`."
	doc.Tags = tagTexts
	if base := a.cfg.BasePath; base != "" {
		doc.Servers = []*huma.Server{{URL: base}} // else it is the root of where the document is
	}
	a.describeRegister(doc)
	describeAccess(doc)
	addExamples(doc)
	describeProblems(doc.Components.Schemas)
	orNullRefs(doc.Components.Schemas)
	var err error
	if a.json, err = doc.MarshalJSON(); err != nil {
		panic("the document: " + err.Error())
	}
	if a.yaml, err = doc.YAML(); err != nil {
		panic("the document: " + err.Error())
	}
	a.page = a.renderPage(doc)
	a.router.Methods(http.MethodGet).Path(Prefix + "openapi.json").HandlerFunc(serving("application/json", a.json))
	a.router.Methods(http.MethodGet).Path("/openapi.json").HandlerFunc(serving("application/json", a.json))
	a.router.Methods(http.MethodGet).Path(Prefix + "openapi.yaml").HandlerFunc(serving("application/yaml", a.yaml))
	a.router.Methods(http.MethodGet).Path("/docs").HandlerFunc(serving("text/html; charset=utf-8", a.page))
}

func serving(contentType string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		problem.Write(w, http.StatusOK, body)
	}
}

// describeRegister describes the original's door, which is served by another room.
func (a *API) describeRegister(doc *huma.OpenAPI) {
	text := huma.TypeString
	body := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{
		"taskId": {Type: text}, "parameters": {Type: huma.TypeObject, AdditionalProperties: true}, "priority": {Type: huma.TypeInteger},
		"note": {Type: text}, "registeredBy": {Type: text},
	}, AdditionalProperties: true}
	answer := &huma.Schema{Type: huma.TypeObject, Required: []string{"status", "taskId"}, Properties: map[string]*huma.Schema{
		"status": {Type: text, Enum: []any{"succeeded", "failed"}}, "taskId": {Type: text}, "taskFlowId": {Type: text},
		"description": {Type: text}, "requestId": {Type: text},
		"ignored": {Type: huma.TypeArray, Items: &huma.Schema{Type: text}, Description: "Fields of the request that mean nothing here; the first ten."},
	}, AdditionalProperties: true}
	answers := map[string]*huma.Response{}
	for status, what := range map[string]string{
		"201": "The flow exists.", "400": "No JSON.", "404": "No such workflow.", "422": "A value is wrong, or the workflow is broken.",
		"503": "The database is away: try again.",
	} {
		answers[status] = &huma.Response{Description: what, Content: map[string]*huma.MediaType{"application/json": {Schema: answer}}}
	}
	operation := func(id string) *huma.Operation {
		return &huma.Operation{
			OperationID: id, Tags: []string{tagFlows}, Summary: "Register a flow: the original's door",
			Description: "The body is JSON whatever the Content-Type says. Needs the role registrar.",
			RequestBody: &huma.RequestBody{Content: map[string]*huma.MediaType{"application/json": {Schema: body}}}, Responses: answers,
		}
	}
	named := operation("register-by-path")
	named.Parameters = []*huma.Param{{Name: "taskId", In: "path", Description: "The workflow.", Required: true, Schema: &huma.Schema{Type: text}}}
	doc.Paths["/register"] = &huma.PathItem{Post: operation("register")}
	doc.Paths["/register/{taskId}"] = &huma.PathItem{Post: named}
}

// describeProblems lists the codes.
func describeProblems(schemas huma.Registry) {
	code := schemas.Map()["Problem"].Properties["code"]
	var text strings.Builder
	text.WriteString("Stays what it is:")
	for _, k := range problem.Kinds() {
		if !slices.Contains(code.Enum, any(k.Code)) {
			code.Enum = append(code.Enum, k.Code)
		}
		fmt.Fprintf(&text, " %s (%d: %s).", k.Code, k.Status, strings.ToLower(k.Title[:1])+k.Title[1:])
	}
	code.Description = text.String()
}

// orNullRefs lets fields be null that are pointers to objects: huma has no way to say so.
func orNullRefs(schemas huma.Registry) {
	for _, schema := range schemas.Map() {
		for name, p := range schema.Properties {
			if p.Ref != "" && slices.Contains(nullable, name) {
				schema.Properties[name] = &huma.Schema{AnyOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}}, Description: p.Description}
			}
		}
	}
}

// nullable are the fields that are an object or null.
var nullable = []string{"failure", "question"}

// page is the document as one page, without anything that is loaded.
type page struct {
	Title, Description string
	Tags               []pageTag
	Codes              []problem.Kind
}

type pageTag struct {
	Name       string
	Operations []pageOperation
}

type pageOperation struct {
	ID, Method, Path, Summary, Description string
	Parameters                             []pageField
	Body                                   []pageField
	Example                                string // of a body
	Answer                                 string
	Fields                                 []pageField
}

type pageField struct{ Name, In, Type, Text string }

func (a *API) renderPage(doc *huma.OpenAPI) []byte {
	p := page{Title: doc.Info.Title, Description: doc.Info.Description, Codes: problem.Kinds()}
	for _, tag := range []string{tagFlows, tagTasks, tagAct, tagWorkflows, tagLook} {
		t := pageTag{Name: tag}
		for _, o := range a.routes {
			if o.tag == tag {
				t.Operations = append(t.Operations, a.pageOperation(doc, o))
			}
		}
		p.Tags = append(p.Tags, t)
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		panic("the page of the document: " + err.Error())
	}
	return b.Bytes()
}

func (a *API) pageOperation(doc *huma.OpenAPI, o operation) pageOperation {
	path := strings.TrimSuffix(Prefix, "/") + o.path
	item := doc.Paths[path]
	op := map[string]*huma.Operation{http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodDelete: item.Delete}[o.method]
	p := pageOperation{ID: o.id, Method: o.method, Path: path, Summary: op.Summary, Description: op.Description}
	schemas := doc.Components.Schemas
	for _, param := range op.Parameters {
		p.Parameters = append(p.Parameters, pageField{param.Name, param.In, typeOf(param.Schema), param.Description})
	}
	if op.RequestBody != nil {
		p.Body, p.Example = fields(schemas, op.RequestBody.Content["application/json"].Schema), examples[o.id]
	}
	for _, r := range op.Responses {
		if m := r.Content["application/json"]; m != nil {
			p.Answer, p.Fields = typeOf(m.Schema), fields(schemas, m.Schema)
		}
	}
	return p
}

// fields are those of an object, by name.
func fields(schemas huma.Registry, s *huma.Schema) []pageField {
	s = resolve(schemas, s)
	if s == nil {
		return nil
	}
	var list []pageField
	for name, p := range s.Properties {
		text := p.Description
		if of := resolve(schemas, p); text == "" && of != nil {
			text = of.Description
		}
		list = append(list, pageField{Name: name, Type: typeOf(p), Text: text})
	}
	slices.SortFunc(list, func(a, b pageField) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// typeOf says what a value is.
func typeOf(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	case len(s.AnyOf) > 0:
		return typeOf(s.AnyOf[0]) + " or null"
	case s.Type == huma.TypeArray:
		return "list of " + typeOf(s.Items)
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			words[i] = fmt.Sprint(e)
		}
		return strings.Join(words, " | ")
	case s.Type == "":
		return "any"
	}
	text := s.Type
	if s.Format == "date-time" {
		text = "time"
	}
	if s.Nullable {
		text += " or null"
	}
	return text
}

var pageTemplate = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>API · {{.Title}}</title><meta name="viewport" content="width=device-width"></head>
<body>
<h1>{{.Title}}: /api/v1</h1>
<p>{{.Description}}</p>
<p>The same for programs: <a href="api/v1/openapi.json">openapi.json</a>, <a href="api/v1/openapi.yaml">openapi.yaml</a>.</p>
<ul>{{range .Tags}}<li>{{.Name}}<ul>{{range .Operations}}<li><a href="#{{.ID}}"><code>{{.Method}} {{.Path}}</code></a> {{.Summary}}</li>{{end}}</ul></li>{{end}}
<li><a href="#codes">Codes of errors</a></li></ul>
{{range .Tags}}<h2>{{.Name}}</h2>{{range .Operations}}
<h3 id="{{.ID}}"><code>{{.Method}} {{.Path}}</code></h3>
<p>{{.Summary}}. {{.Description}}</p>
{{if .Parameters}}<table><caption>Parameters</caption><tr><th>Name<th>In<th>Type<th></tr>{{range .Parameters}}<tr><td><code>{{.Name}}</code><td>{{.In}}<td>{{.Type}}<td>{{.Text}}</tr>{{end}}</table>{{end}}
{{if .Body}}<table><caption>Body</caption><tr><th>Field<th>Type<th></tr>{{range .Body}}<tr><td><code>{{.Name}}</code><td>{{.Type}}<td>{{.Text}}</tr>{{end}}</table>{{end}}
{{if .Example}}<pre>curl -X {{.Method}} localhost:8000{{.Path}} -d '{{.Example}}'</pre>{{end}}
{{if .Fields}}<table><caption>Answer: {{.Answer}}</caption><tr><th>Field<th>Type<th></tr>{{range .Fields}}<tr><td><code>{{.Name}}</code><td>{{.Type}}<td>{{.Text}}</tr>{{end}}</table>{{end}}
{{end}}{{end}}
<h2 id="codes">Codes of errors</h2>
<table><tr><th>Status<th>Code<th></tr>{{range .Codes}}<tr><td>{{.Status}}<td><code>{{.Code}}</code><td>{{.Title}}</tr>{{end}}</table>
</body>
</html>
`))
