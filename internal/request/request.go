// Package request reads what comes in over HTTP, for whatever room serves it: ids in paths,
// bodies of JSON, keys in headers, registrations. What the database could not hold ends
// here, with an answer that says where and why.
package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/problem"
)

// MaxBody is how large a body may be.
const MaxBody = 1 << 20

const (
	maxDepth = 100 // of JSON
	maxKey   = 200 // characters of an Idempotency-Key
)

// ReadAll returns a body's bytes.
func ReadAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := problem.BodyTooLarge.Because("the body is larger than 1 MiB (%d bytes)", MaxBody)
	if r.ContentLength > MaxBody {
		return nil, tooLarge
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, problem.BodyTooSlow.Because("the body did not arrive in time")
	case err != nil:
		return nil, problem.MalformedBody.Because("the body ended early")
	}
	return text, nil
}

// Check reports whether a text is JSON that the database can hold, as it is and in all its
// strings. The example is shown where it is none.
func Check(text []byte, example string) error {
	if bad := scan(text, example); bad != nil {
		return bad
	}
	var v json.RawMessage
	err := json.Unmarshal(text, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at := int(syntax.Offset) - 1
		if cutOff(text) {
			at = len(text)
		}
		return malformedAt(text, at, syntax.Error(), example)
	}
	if err != nil {
		return problem.MalformedBody.Because("the body cannot be read as JSON; send for example %s", example)
	}
	return nil
}

// cutOff reports whether a text that is no JSON is the beginning of some. Of a
// SyntaxError the offset alone does not tell that from a wrong last byte.
func cutOff(text []byte) bool {
	err := json.NewDecoder(bytes.NewReader(text)).Decode(new(json.RawMessage))
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// ID returns an id of a path, unescaped once.
func ID(escaped string) (string, error) {
	id, err := url.PathUnescape(escaped)
	if err != nil || !Storable(id) {
		return "", problem.MalformedPath.Because("the id in the path must be percent-escaped UTF-8 without U+0000")
	}
	return id, nil
}

// Storable reports whether the database can hold a text.
func Storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

// Key returns the idempotency key of a request; empty if it has none. An empty header is
// refused: whoever sends one counts on a protection that would not be there.
func Key(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	n := utf8.RuneCountInString(key)
	printable := utf8.ValidString(key) && !strings.ContainsFunc(key, func(c rune) bool { return !unicode.IsPrint(c) })
	if len(values) > 1 || n == 0 || n > maxKey || !printable {
		return "", problem.MalformedHeader.Because("Idempotency-Key must be one value of 1 to %d printable characters", maxKey)
	}
	return key, nil
}
