package flow

import (
	"crypto/sha256"
	"encoding/hex"
)

// A task may have asked somebody who answers later, by a call to register. Whoever calls
// shows a token, of which the database has no more than a hash: who can read the tables
// must not be able to answer for others.

// HashCallback returns what is kept of a callback's token.
func HashCallback(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Answer is what a call has brought.
type Answer struct {
	Attempt int    `json:"attempt"` // the last one that had started by then: the next one finds it
	Body    string `json:"body"`    // JSON, as it came
}

// Answered is what became of a call with the right token.
type Answered string

// What becomes of it.
const (
	AnswerTaken    Answered = "taken"
	AnswerRepeated Answered = "repeated" // there is one already
	AnswerLate     Answered = "late"     // the task does not wait any more
)
