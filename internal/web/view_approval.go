package web

import (
	"fmt"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// approvalCard is a task that asks a person: what, and what waits for the answer.
type approvalCard struct {
	Task     taskRow
	Question errorView // it is kept as the task's error, and names who should answer
	Since    time.Time
	Blocks   string // "2 tasks wait for it: 4 build_mart, 5 notify"
	Buttons  []button
}

// approvalCards makes a card for each task that asks, in their order.
func approvalCards(tasks []flow.TaskState, g graph, watchers watchers, q query) (cards []approvalCard, unshown int) {
	for _, t := range tasks {
		switch {
		case !t.Asks:
			continue
		case len(cards) == cardsShown:
			unshown++
			continue
		}
		c := approvalCard{
			Task: newTaskRow(t, g, watchers, q), Question: newErrorView(fmt.Sprintf("question-%d", t.Seq), t.Error), Since: t.SuspendedAt,
		}
		if behind := g.behind(t.Seq); len(behind) > 0 {
			c.Blocks = fmt.Sprintf("%s for it: %s", plural(len(behind), "task waits", "tasks wait"), g.names(behind))
		}
		cards = append(cards, c)
	}
	return cards, unshown
}

// lookOfWhole shows a flow's status, for which its tasks are known: if all that is held of
// it asks, it waits for approval.
func lookOfWhole(s flow.State) look {
	asks, held := 0, 0
	for _, t := range s.Tasks {
		switch {
		case t.Asks:
			asks++
		case t.Status == flow.Suspended && t.Reason == flow.ReasonHeld:
			held++
		}
	}
	if s.Status == flow.FlowHeld && asks > 0 && held == 0 {
		return lookApproval
	}
	return lookOfFlow(s.Status)
}
