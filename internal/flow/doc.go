// Package flow has the words and the rules of Flower: what a workflow, a flow and a
// task are, which graphs are legal, and what may become of a task. It is pure: no
// I/O, no clock, no SQL, no randomness. Every other room speaks its language.
//
// # The model
//
// A [Workflow] is a definition: a directed acyclic graph of [TaskDefinition]s, the
// rows of ms_task_definition under one task_id. Registering it makes a [Flow]: one
// execution, with a [Task] for each definition, the rows of kr_task_stat under one
// task_flow_id. A flow keeps what it was registered with; editing a definition never
// changes a flow that exists.
//
// A watcher claims a task, runs the program that the task names, and records how that
// ended. One try is an attempt. A claim is the ownership of one attempt; its random id
// is the fence: whatever an owner writes later says "still running, and with this
// claim", so that the late result of a superseded attempt changes nothing.
//
// # The states of a task
//
//	              claim                    success
//	0 Waiting ──────────────► 1 Running ─────────────► 3 Finished
//	    ▲  ▲                    │    │
//	    │  └────────────────────┘    │ failed, timeout, invalid, lost
//	    │   retry, rescue, pause,    ▼
//	    └─────────────────────── 2 Suspended          9 Ignored
//	      rerun (by a person)                           skip (by a person, or by the
//	                                                    task's own condition, from 1)
//
// Finished and ignored tasks satisfy what depends on them. Suspend is the one stopped
// state: a [Reason] says why, and setting the row to 0 lets it run again.
//
// # The invariants
//
//   - A task starts only when every task that it depends on is finished or ignored.
//   - A task has one owner at a time, and only the owner's result counts.
//   - A finished task is never run again by Flower itself.
//   - A failure is always recorded as one, with its text.
//   - What a person writes wins: it revokes the claim of the attempt that runs.
//
// What a person does to a flow or a task is an [Action]; its [Effect] is known before it is
// carried out.
//
// The promise to programs: a task runs at least once. A program must tolerate being
// run again; [Task.IdempotencyKey] helps it.
package flow
