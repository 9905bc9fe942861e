package api

import (
	"bytes"
	"encoding/json"

	"github.com/d-tsuji/flower/internal/request"
)

// masked returns a row's JSON with the values hidden whose key looks like a secret's;
// none if there is no JSON.
func masked(text json.RawMessage, none string) object {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if len(text) == 0 || d.Decode(&v) != nil {
		return object(none)
	}
	return object(request.Compact(request.Mask(v)))
}
