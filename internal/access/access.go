// Package access says who is calling register, and what that one may do.
//
// The layer that finds out puts a Principal into the request's context; whoever serves a
// request asks Of. Each role may do what the ones before it may.
package access

import "context"

// Role is what a principal may do.
type Role int

// The roles. None is the zero value, which may do nothing.
const (
	None      Role = iota
	Reader         // read everything
	Registrar      // and register flows
	Operator       // and rerun, cancel, hold, resume, skip and finish
	Admin          // and change definitions and limits
)

// String returns the role's name.
func (r Role) String() string {
	switch r {
	case Reader:
		return "reader"
	case Registrar:
		return "registrar"
	case Operator:
		return "operator"
	case Admin:
		return "admin"
	default:
		return "none"
	}
}

// Principal is who is calling.
type Principal struct {
	Name string // as it stands in kr_event and kr_flow; never empty
	Role Role
}

type principalKey struct{}

// With returns a context that knows who is calling.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Of returns who is calling. It panics where nobody has found out: a route that is
// reached without that would be open to everybody.
func Of(ctx context.Context) Principal {
	p, ok := ctx.Value(principalKey{}).(Principal)
	if !ok {
		panic("a handler was reached before anybody asked who is calling")
	}
	return p
}
