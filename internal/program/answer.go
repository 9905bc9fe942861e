package program

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// statusError is an answer that is not a success.
type statusError struct {
	code   int
	answer []byte
}

func (e statusError) Error() string {
	text := statusText(e.code)
	if e.code/100 == 3 {
		text += " (redirects are not followed)"
	}
	if answer := strings.TrimSpace(string(e.answer)); answer != "" {
		text += ": " + answer
	}
	return text
}

// statusText does not use the words that came with the answer: they may be anything.
func statusText(code int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
}

// redactor takes what the query, the user info and the headers of a message may hold in
// secret out of a text.
func (m message) redactor() *strings.Replacer {
	target := m.target
	parts := append(secretHeaders(m.headers), target.RawQuery, m.token)
	if user := target.User; user != nil {
		password, _ := user.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		parts = append(parts, user.String(), user.Username(), password, basic)
	}
	for _, values := range target.Query() {
		parts = append(parts, values...)
	}
	for pair := range strings.SplitSeq(target.RawQuery, "&") {
		_, raw, _ := strings.Cut(pair, "=")
		parts = append(parts, raw)
	}
	// Shorter ones are no secrets, and taking out each "1" would leave nothing to read.
	const shortest = 4
	parts = slices.DeleteFunc(parts, func(s string) bool { return len(s) < shortest })
	// A Replacer takes the first that fits: the longest must come first.
	slices.SortFunc(parts, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var pairs []string
	for _, part := range parts {
		pairs = append(pairs, part, "…")
	}
	return strings.NewReplacer(pairs...)
}

// answerOutput is the output of a request that succeeded:
//
//	{"status": 200, "body": …, "truncated": true}
//
// The body is the answer if that is JSON, else a string of it. It is cut, and only then
// said to be truncated, to keep within flow.MaxOutput.
func answerOutput(status int, answer []byte) json.RawMessage {
	type output struct {
		Status    int  `json:"status"`
		Body      any  `json:"body"`
		Truncated bool `json:"truncated,omitempty"`
	}
	if body, ok := storable(answer); ok {
		if enc := encode(output{Status: status, Body: body}); len(enc) <= flow.MaxOutput {
			return enc
		}
	}
	text := strings.ReplaceAll(strings.ToValidUTF8(string(answer), "\uFFFD"), "\x00", "\uFFFD")
	out := output{Status: status, Body: text}
	if len(answer) > maxAnswer {
		text, out.Truncated = text[:min(len(text), maxAnswer)], true
	}
	for {
		out.Body = strings.ToValidUTF8(text, "")
		enc := encode(out)
		if len(enc) <= flow.MaxOutput {
			return enc
		}
		// Escapes make a text longer, each part differently: come nearer step by step.
		text, out.Truncated = text[:len(text)*flow.MaxOutput/len(enc)], true
	}
}

// encode marshals v without the escapes that are for HTML, which would only take room.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // no value that was decoded from JSON fails
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// storable decodes an answer that is JSON, if PostgreSQL can keep it as jsonb. Encoded
// again, it has no invalid characters and no halves of surrogate pairs, either.
func storable(answer []byte) (any, bool) {
	if len(answer) > maxAnswer || !json.Valid(answer) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(answer))
	d.UseNumber() // keeps numbers as they are written
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false
	}
	return v, keepable(v)
}

// keepable reports whether jsonb has a place for v: it has none for U+0000, nor for
// numbers beyond 10^131072.
func keepable(v any) bool {
	switch v := v.(type) {
	case string:
		return !strings.Contains(v, "\x00")
	case json.Number:
		const longest, exponent = 64, len("e-999")
		i := strings.IndexAny(string(v), "eE")
		return len(v) <= longest && (i < 0 || len(v)-i <= exponent)
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !keepable(e) })
	case map[string]any:
		for key, e := range v {
			if !keepable(key) || !keepable(e) {
				return false
			}
		}
	}
	return true
}
