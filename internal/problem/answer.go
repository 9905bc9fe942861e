package problem

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// Document is what is answered on failure (RFC 9457).
type Document struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail" doc:"What happened, to which flow and task, and what to do next: for people."`
	Instance  string `json:"instance"`
	RequestID string `json:"requestId" doc:"Names the request in the log."`
	Extra
}

// ContentType is that of a Document.
const ContentType = "application/problem+json"

const maxDetail = 2 << 10

// Document makes the answer to a request.
func (f *Failure) Document(r *http.Request) Document {
	return Document{
		Type: "about:blank", Title: f.Title, Status: f.Status, Code: f.Code, Detail: Cut(f.Detail, maxDetail),
		Instance: r.URL.EscapedPath(), RequestID: RequestID(r.Context()), Extra: f.Extra,
	}
}

// SetHeaders sets the headers that belong to the failure.
func (f *Failure) SetHeaders(h http.Header) {
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	switch f.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="flower"`)
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout:
		h.Set("Connection", "close") // the rest of the body is not wanted
	}
}

// Write answers a request.
func (f *Failure) Write(w http.ResponseWriter, r *http.Request) {
	f.SetHeaders(w.Header())
	w.Header().Set("Content-Type", ContentType)
	WriteJSON(w, f.Status, f.Document(r))
}

// WriteJSON answers with v. It sets the Content-Type if nobody did.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false) // for people with curl; browsers are told not to sniff
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("encode an answer: %v", err)) // its types are all ours
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	Write(w, status, body.Bytes())
}

// WriteText answers with plain text.
func WriteText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	Write(w, status, []byte(text))
}

// Write answers with a whole body.
func Write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client is gone
}

// Cut shortens a text to n bytes, at a character's border.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// location names a task or a flow that is in the way.
func location(r flow.Refusal) string {
	text := "flows/" + url.PathEscape(string(r.Flow))
	if r.Seq > 0 {
		text += "/tasks/" + strconv.Itoa(r.Seq)
	}
	return text
}

// Server is what the server that is outside of everything does for whoever serves a
// request.
type Server interface {
	// RequestID names the request, in answers and in the log.
	RequestID() string

	// Fail answers with an error, and notes it.
	Fail(w http.ResponseWriter, r *http.Request, err error)

	// Note logs what only the log may know of a failure that somebody else answers.
	Note(r *http.Request, f *Failure)

	// Answered notes that the database has taken what was written, if it has.
	Answered(ctx context.Context, err error)
}

type serverKey struct{}

// With returns a context that knows the server.
func With(ctx context.Context, s Server) context.Context {
	return context.WithValue(ctx, serverKey{}, s)
}

// serverOf panics where a handler was reached past the
// server: nobody would answer its errors.
func serverOf(ctx context.Context) Server {
	s, ok := ctx.Value(serverKey{}).(Server)
	if !ok {
		panic("a handler was reached without the server that answers its errors")
	}
	return s
}

// Fail answers a request with an error.
func Fail(w http.ResponseWriter, r *http.Request, err error) { serverOf(r.Context()).Fail(w, r, err) }

// Note logs what only the log may know of a failure, for whoever answers it in a form of its
// own.
func Note(r *http.Request, f *Failure) { serverOf(r.Context()).Note(r, f) }

// RequestID returns the id of the request.
func RequestID(ctx context.Context) string { return serverOf(ctx).RequestID() }

// Answered notes that the database has taken what was written, if err is nil or says that
// something does not exist. That it can be read says little: it may be read-only.
func Answered(ctx context.Context, err error) { serverOf(ctx).Answered(ctx, err) }
