package web

// help is what /help shows.
type help struct {
	Keys   []key
	States []meaning
}

type key struct {
	Keys []string
	Does string
}

type meaning struct {
	Look  look
	Code  string // as it stands in the table
	Means string
}

func legend() help {
	return help{
		Keys: []key{
			{[]string{"/"}, "search"},
			{[]string{"g"}, "then n for Now, f Flows, x Failures, w Workflows, a Watchers, e Events"},
			{[]string{"j", "k"}, "next and previous row"},
			{[]string{"Enter"}, "open it"},
			{[]string{"x"}, "tick it"},
			{[]string{"n", "p"}, "next and previous failed task"},
			{[]string{"←", "→"}, "along the dependencies, while list or graph has the focus"},
			{[]string{"e", "l"}, "the error, the log of the selected task"},
			{[]string{"w"}, "wrap long lines"},
			{[]string{"r"}, "rerun the flow, or those that are ticked: shows first what it does"},
			{[]string{"t", "u", "v"}, "theme; local time or UTC; live or paused"},
			{[]string{"?"}, "this list"},
			{[]string{"Esc"}, "close"},
		},
		States: []meaning{
			{lookWaiting, "0", "something before it has not ended"},
			{lookBlocked, "0", "something before it is suspended: nothing happens without a person"},
			{lookQueued, "0", "it can go, and waits for a free worker"},
			{lookRetry, "0", "it failed, and is tried again at run_after"},
			{lookTime, "0", "not before run_after, which its program or its row says"},
			{lookChild, "0", "it has registered a flow, and goes on at its end"},
			{lookCallback, "0", "whom it has asked will call when that is done"},
			{lookLimit, "0", "as much of its workflow runs as may at once"},
			{lookNoWatcher, "0", "no live watcher has its program"},
			{lookRunning, "1", "a watcher runs it"},
			{lookFailed, "2", "its program returned an error; also Timed out, Lost, Invalid"},
			{lookSuspended, "2", "stopped by hand, without a reason: treated as failed"},
			{lookHeld, "2", "a person keeps it from starting"},
			{lookApproval, "2", "it asks a person, and goes on when somebody approves"},
			{lookCancelled, "2", "a person stopped it"},
			{lookFinished, "3", "done"},
			{lookSkipped, "9", "left out: what depends on it goes on"},
		},
	}
}
