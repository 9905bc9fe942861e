package api

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/d-tsuji/flower/internal/definition"
	"github.com/d-tsuji/flower/internal/problem"
)

// Problem is the answer to a request that failed (RFC 9457, application/problem+json). Programs go by its code.
type Problem struct{ problem.Document }

// Error makes it one of huma's.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the answer's status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the answer's, whatever was asked for.
func (p *Problem) ContentType(string) string { return problem.ContentType }

// replaceErrors has huma answer what it finds wrong with a request as we answer everything
// else. Its own errors would show the text of unknown ones, and repeat what was sent.
var replaceErrors = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true                                                   // "taskid" is no field
	huma.NewError = func(int, string, ...error) huma.StatusError { return &Problem{} } // for the document
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		r, _ := humamux.Unwrap(ctx)
		return &Problem{wrongRequest(ctx.Operation(), status, msg, errs).Document(r)}
	}
})

// wrongRequest says what is wrong with a request that huma refuses.
func wrongRequest(op *huma.Operation, status int, msg string, errs []error) *problem.Failure {
	if status != http.StatusUnprocessableEntity && status != http.StatusBadRequest {
		panic(fmt.Errorf("huma answers %d to %s: %s: %w", status, op.OperationID, msg, fmt.Errorf("%v", errs)))
	}
	var fields []problem.FieldError
	for _, err := range errs {
		if d, ok := err.(huma.ErrorDetailer); ok { //nolint:errorlint // it is huma's own, unwrapped
			detail := d.ErrorDetail()
			fields = append(fields, problem.FieldError{Location: problem.Cut(detail.Location, 200), Message: problem.Cut(detail.Message, 500)})
		}
	}
	slices.SortStableFunc(fields, func(a, b problem.FieldError) int { return cmp.Compare(a.Location, b.Location) })
	if len(fields) == 0 {
		return problem.MalformedBody.Because("this takes a body: a JSON object; GET /docs says what is in it")
	}
	fields = fields[:min(len(fields), 20)]
	first := 0 // or the first one that does not exist: another one may be missing because of it
	for i, f := range slices.Backward(fields) {
		if f.Message == validation.MsgUnexpectedProperty || f.Message == unknownQuery {
			fields[i].Message, first = unknownField(op, f.Location), i
		}
	}
	f := kindOf(fields[first]).Because("%s", sentence(fields[first]))
	f.Extra.Errors = fields
	return f
}

const unknownQuery = "unknown query parameter"

func kindOf(f problem.FieldError) problem.Kind {
	switch {
	case strings.HasPrefix(f.Message, noField):
		return problem.UnknownField
	case strings.HasPrefix(f.Location, "query"):
		return problem.InvalidFilter
	case strings.HasPrefix(f.Location, "path"):
		return problem.MalformedPath
	}
	return problem.InvalidValue
}

// sentence says it in words: "limit: expected number <= 1000".
func sentence(f problem.FieldError) string {
	if strings.HasPrefix(f.Message, noField) {
		return f.Message
	}
	_, name, _ := strings.Cut(f.Location, ".")
	if name == "" {
		return f.Message
	}
	return name + ": " + f.Message
}

const noField = "there is no "

// unknownField names what was meant, perhaps.
func unknownField(op *huma.Operation, location string) string {
	where, path, _ := strings.Cut(location, ".")
	var known []string
	kind := "field"
	name := path
	if where == "query" {
		kind = "query parameter"
		for _, p := range op.Parameters {
			if p.In == "query" {
				known = append(known, p.Name)
			}
		}
	} else {
		known, name = fieldsOf(op, path)
	}
	text := fmt.Sprintf("%s%s %q", noField, kind, problem.Cut(name, 60))
	if len(known) == 0 {
		return text
	}
	slices.Sort(known)
	if near := definition.Nearest(name, slices.Values(known)); near != "" {
		return text + fmt.Sprintf("; did you mean %q?", near)
	}
	return text + "; there are " + strings.Join(known, ", ")
}

// fieldsOf returns the names that the object has in which the last part of a path is, and
// that part.
func fieldsOf(op *huma.Operation, path string) (known []string, name string) {
	schemas, _ := op.Metadata[schemasKey].(huma.Registry)
	if schemas == nil || op.RequestBody == nil {
		return nil, path
	}
	schema := op.RequestBody.Content["application/json"].Schema
	parts := strings.Split(path, ".")
	for _, part := range parts[:len(parts)-1] {
		if schema = resolve(schemas, schema); schema == nil {
			return nil, path
		}
		schema = schema.Properties[part]
	}
	if schema = resolve(schemas, schema); schema == nil {
		return nil, path
	}
	for field := range schema.Properties {
		known = append(known, field)
	}
	return known, parts[len(parts)-1]
}

func resolve(schemas huma.Registry, s *huma.Schema) *huma.Schema {
	if s != nil && s.Ref != "" {
		return schemas.SchemaFromRef(s.Ref)
	}
	return s
}
