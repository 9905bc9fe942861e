package flow

import "time"

// Stream says where a line of a task's log comes from.
type Stream string

// The streams.
const (
	StreamStdout Stream = "stdout"
	StreamStderr Stream = "stderr"
	StreamLog    Stream = "log"    // what the program itself says
	StreamFlower Stream = "flower" // in place of lines that are missing: how many
)

// LogLine is a line of an attempt's log.
type LogLine struct {
	No     int64 // counts from 1, within the attempt
	At     time.Time
	Stream Stream
	Text   string // valid UTF-8 without U+0000
}

// LogPart is what is to be done to an attempt's log: lines to add, and, where GoneTo is
// not 0, lines to take out, from number GoneFrom to number GoneTo. It may be done twice:
// a line that is there already stays as it is, unless it is to make way for one of
// StreamFlower.
type LogPart struct {
	TaskKey
	Attempt          int
	ClaimID          string
	Lines            []LogLine
	GoneFrom, GoneTo int64
}
