// Package program has what a task can run: one small interface, a set of programs by
// name, and the programs that come with Flower, a file each.
//
// # Adding a program
//
// A program is a type with two methods. Parameters says, as data, what it understands;
// Run does the work:
//
//	type greet struct{}
//
//	func (greet) Parameters() []program.Parameter {
//		return []program.Parameter{{Name: "WHO", Type: program.String, Required: true,
//			Description: "Whom to greet."}}
//	}
//
//	func (greet) Run(ctx context.Context, in program.Input) (json.RawMessage, error) {
//		in.Log.Info("hello", "who", in.Params.String("WHO"))
//		return nil, nil
//	}
//
// It joins the others in [Default], a line there, under the name that
// ms_task_definition.program says, and gets a line in TestConformance, which holds it to
// what follows. [Input] has what else there is: the task, where to print, what earlier
// tasks have returned.
//
// Three more methods are optional. Check(Values) error has rules for parameters together,
// also at registration, when what expressions come to is not known yet ([Values.Open]).
// OffWithout() string names the setting that a watcher lacks if it must not run the
// program; such a program is known all the same, so that its parameters can be checked.
// Housekeep(context.Context, *slog.Logger) runs as long as the watcher does, for a program
// whose work can be left behind outside the database.
//
// # Parameters
//
// What a workflow's tasks are given is checked when a flow is registered, by
// [Set.CheckWorkflow]: a mistake is answered at once, with the task and the parameter.
// Rows by hand are not registered, so each run checks again. A name that the program does
// not declare is a mistake in a definition; in a request it is not, since a request's
// parameters go to every task. A request may replace what the definition says unless a
// parameter is Fixed: whatever decides what runs, or where it goes, should be.
//
// A definition's values may have expressions in them, ${{ … }}, which come to something
// before Run is called: it gets values, and never looks for expressions itself. A parameter
// that the program puts into a table, or shows, is Public: it cannot have a secret in it.
//
// # The promise, and what is asked in return
//
// A task runs at least once: its watcher may die after the work and before the result
// is recorded, and then the task runs again. A program must tolerate that.
// [flow.Task.IdempotencyKey] is the same for each repetition, so that whoever receives
// the effect can recognise it.
//
// A program stops soon after its context ends, and then returns [context.Cause] of it:
// a task that was cancelled, timed out or is handed back at shutdown holds its worker
// until the program returns. It is called for several tasks at once. Where the cause is
// [flow.ErrShutdown] or [flow.ErrFenced], the task goes on elsewhere: work that outlives
// the watcher may be left to the next attempt.
//
// What the work prints goes to Input.Stdout and Input.Stderr, and what the program itself
// has to say to Input.Log. All of it is kept in the database as the attempt's log
// (kr_task_log), where people look first; Input.Log goes to the watcher's log, too. Secrets
// of the watcher are masked in all of that, and in what Run returns: by mask.go, for
// accidents. A program gives none away on purpose, and where it cuts a text it marks that
// with an ellipsis, or what is left of a secret may not be found.
//
// # Pausing
//
// A program that waits for something else than its own work returns a [*flow.Pause] as its
// error, which is none: until a time, for the end of a flow, or for a person. No worker is
// held, and whatever runs next finds the pause in in.Task.Pause, with the State that was
// put into it: that of a job in another system, say, which is then looked at again instead
// of started twice. Not if a person has meanwhile set the task back to run anew. A timeout
// is one of each attempt, and says nothing about the time between them. Time itself is the
// database's: in.Task.StartedAt is when the attempt began.
//
// # Errors
//
// Whatever Run returns as an error becomes the task's error, to be read by a person: it
// says what was tried and what happened, and never repeats a secret. An error may be
// tried again, as the task's definition allows. A [*flow.InvalidError] means that no
// retry can help, because what a person wrote must change first; wrong parameters give
// one before Run is called. A panic is a failure, too: the watcher sees to it.
package program
