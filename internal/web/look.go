package web

import (
	"github.com/d-tsuji/flower/internal/flow"
)

// look is how a state is shown, the same on every page.
type look struct {
	Class string // s-CLASS in css/base.css has its colours
	Icon  string // in icons.svg
	Label string // one word, or two
}

// The looks. Classes are those of UI's palette: what failed in whatever way is red.
var (
	lookWaiting   = look{"waiting", "waiting", "Waiting"}
	lookBlocked   = look{"blocked", "blocked", "Blocked"}
	lookQueued    = look{"queued", "queued", "Queued"}
	lookRetry     = look{"retry", "retry", "Retry"}
	lookLimit     = look{"queued", "attention", "Queued: limit"}
	lookNoWatcher = look{"queued", "attention", "Queued: no watcher"}
	lookTime      = look{"queued", "queued", "Not yet due"}
	lookChild     = look{"queued", "subflow", "Waits for a flow"}
	lookCallback  = look{"queued", "callback", "Waits for a call"}
	lookRunning   = look{"running", "running", "Running"}
	lookFailed    = look{"failed", "failed", "Failed"}
	lookTimeout   = look{"failed", "failed", "Timed out"}
	lookLost      = look{"failed", "failed", "Lost"}
	lookInvalid   = look{"failed", "failed", "Invalid"}
	lookSuspended = look{"failed", "suspended", "Suspended"}
	lookHeld      = look{"held", "held", "Held"}
	lookApproval  = look{"held", "approval", "Waits for approval"}
	lookCancelled = look{"cancelled", "cancelled", "Cancelled"}
	lookStopped   = look{"cancelled", "cancelled", "Stopped"} // an attempt that was superseded while it ran
	lookFinished  = look{"finished", "finished", "Finished"}
	lookSkipped   = look{"skipped", "skipped", "Skipped"}
)

// lookOfFlow shows a flow's status, which is a word of v_flow.
func lookOfFlow(status string) look {
	switch status {
	case "running":
		return lookRunning
	case "failed":
		return lookFailed
	case "held":
		return lookHeld
	case "cancelled":
		return lookCancelled
	case "queued":
		return lookQueued
	case "finished":
		return lookFinished
	}
	return look{"waiting", "waiting", status}
}

// lookOfSummary shows a flow of a list: if all that is stopped of it asks, it waits for
// approval.
func lookOfSummary(s flow.Summary) look {
	if s.Status == flow.FlowHeld && s.Asks > 0 && s.Asks == s.Counts.Suspended {
		return lookApproval
	}
	return lookOfFlow(s.Status)
}

// lookOfState shows the state of a task of which everything is known.
func lookOfState(t flow.TaskState) look {
	if t.Asks {
		return lookApproval
	}
	return lookOfTask(t.Status, t.Reason, t.Wait.Reason)
}

// lookOfTask shows a task's state. Why a waiting one waits is not in its row:
// waitReason is a word of v_why_waiting, or empty.
func lookOfTask(s flow.Status, r flow.Reason, waitReason string) look {
	switch s {
	case flow.Running:
		return lookRunning
	case flow.Finished:
		return lookFinished
	case flow.Ignored:
		return lookSkipped
	case flow.Suspended:
		return lookOfReason(r)
	case flow.Waiting:
		return lookOfWait(waitReason)
	}
	return look{"waiting", "waiting", s.String()}
}

func lookOfReason(r flow.Reason) look {
	switch r {
	case flow.ReasonFailed:
		return lookFailed
	case flow.ReasonTimeout:
		return lookTimeout
	case flow.ReasonLost:
		return lookLost
	case flow.ReasonInvalid:
		return lookInvalid
	case flow.ReasonHeld:
		return lookHeld
	case flow.ReasonCancelled:
		return lookCancelled
	}
	return lookSuspended
}

func lookOfWait(waitReason string) look {
	switch waitReason {
	case "blocked":
		return lookBlocked
	case "queued":
		return lookQueued
	case "retry":
		return lookRetry
	case "limit":
		return lookLimit
	case "no_watcher":
		return lookNoWatcher
	case "time":
		return lookTime
	case "flow":
		return lookChild
	case "callback":
		return lookCallback
	}
	return lookWaiting
}
