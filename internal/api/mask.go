package api

import (
	"encoding/json"

	"github.com/d-tsuji/flower/internal/request"
)

// masked returns a row's JSON with the values hidden whose key looks like a secret's;
// none if there is no JSON.
func masked(text json.RawMessage, none string) object {
	v, err := request.Decode[any](text)
	if err != nil {
		return object(none)
	}
	return object(request.Compact(request.Mask(v)))
}
