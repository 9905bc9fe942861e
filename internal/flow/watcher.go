package flow

// Watcher is a process that runs tasks, as it makes itself known.
type Watcher struct {
	ID       string // a UUID that is never used again
	Host     string
	PID      int
	Version  string
	Programs []string
	Workers  int
}

// Pulse is the answer to a heartbeat.
type Pulse struct {
	Revoked  []Task // TaskKey and ClaimID of running tasks that are no longer the watcher's
	Watchers int    // that are alive and do not stop, this one included
	Rescue   bool   // another watcher's lease has ended, and this one may rescue its tasks
}

// Rescued is a task that was taken back from a watcher that vanished.
type Rescued struct {
	Key     TaskKey
	Watcher string
	Status  Status // Waiting: it runs again; Suspended: a person decides
}

// Swept is what a sweep repaired: nothing, unless something went wrong before.
type Swept struct {
	Rescued   []Rescued
	Recounted []TaskKey
	Leftovers int64     // entries of the queue without a task
	Hopeless  []TaskKey // suspended: they depend on what does not exist, or on themselves
}
