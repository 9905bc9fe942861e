package definition

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/d-tsuji/flower/internal/flow"
)

// Edited is what becomes of a workflow, for JSON.
type Edited struct {
	TaskID  flow.WorkflowID `json:"taskId"`
	What    string          `json:"what"`              // created, changed, deleted, unchanged
	Version int             `json:"version,omitempty"` // of what there is now
	Changes []Change        `json:"changes"`           // of one that was changed
}

// Report says what an edit made, or would make, of each workflow.
func Report(edited []flow.EditedDefinition) ([]Edited, error) {
	report := make([]Edited, len(edited))
	for i, e := range edited {
		report[i] = Edited{TaskID: e.ID, What: e.What(), Version: e.Version, Changes: []Change{}}
		if e.Old == nil || e.New == nil {
			continue
		}
		changes, err := Diff(*e.Old, *e.New)
		if err != nil {
			return nil, fmt.Errorf("workflow %q: %w", e.ID, err)
		}
		report[i].Changes = append(report[i].Changes, changes...)
	}
	return report, nil
}

// WriteJSON writes a report for scripts.
func WriteJSON(w io.Writer, dryRun bool, edited []flow.EditedDefinition) error {
	report, err := Report(edited)
	if err != nil {
		return err
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"dryRun": dryRun, "workflows": report})
}

// WriteText writes it for people: each workflow with its changes, and how many there are.
// A dry run says the same, and at the end that it was one.
func WriteText(w io.Writer, dryRun bool, edited []flow.EditedDefinition) error {
	counts := map[string]int{}
	for _, e := range edited {
		counts[e.What()]++
		if err := WriteDiff(w, e); err != nil {
			return err
		}
	}
	end := ""
	if dryRun {
		end = "; this was a dry run: nothing was changed"
	}
	_, err := fmt.Fprintf(w, "%d created, %d changed, %d deleted, %d unchanged%s\n",
		counts["created"], counts["changed"], counts["deleted"], counts["unchanged"], end)
	return err
}
