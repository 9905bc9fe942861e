package web

// message says what an action has come to, once, above the page.
type message struct {
	Text string
	Undo *undo // the form that takes it back, where one click is enough for that
}

type undo struct {
	Label  string
	Path   string
	Fields []field
}

// field is a hidden one of a form.
type field struct{ Name, Value string }

// banner is what needs a person, on every page.
type banner struct {
	Text   string
	Remedy string // a command
}
