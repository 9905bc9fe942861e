package api

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever pastes such a line runs curl and nothing else, whatever the others' ids are.
func TestFlow_TextOfOddIDs(t *testing.T) {
	t.Parallel()
	s := nightly()
	s.ID = "a&reboot&$HOME'"
	s.Tasks[2].Asks = true
	text := flowText(s, view{site: "http://h"})
	require.Contains(t, text, "or: curl -X POST 'http://h/api/v1/flows/a&reboot&$HOME%27/rerun'\n")
	require.Contains(t, text, "or: curl -X POST 'http://h/api/v1/flows/a&reboot&$HOME%27/tasks/3/approve'  no: …/cancel\n")
}
