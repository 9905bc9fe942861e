package web

import (
	"github.com/d-tsuji/flower/internal/access"
)

// button is what a person can do. One that cannot be used stays in sight, and says why.
type button struct {
	Label   string
	Icon    string
	Path    string // of a page or, with Post, of what a form is posted to; made by url
	Query   string // "?from=3"
	Post    bool
	Fields  []field
	Primary bool
	Dialog  bool   // the page is shown as a dialog
	Key     string // of the keyboard, as data-KEY; empty is none
	Why     string // why it cannot be used; empty: it can
}

// needs keeps a button from whoever may not do that.
func (b button) needs(who access.Principal, role access.Role) button {
	if err := who.Require(role); err != nil && b.Why == "" {
		b.Why = capital(err.Error())
	}
	return b
}

// unless keeps a button from being used for a reason.
func (b button) unless(not bool, why string) button {
	if b.Why == "" && not {
		b.Why = why
	}
	return b
}
