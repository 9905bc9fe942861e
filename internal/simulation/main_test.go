// Package simulation tests the engine as a whole on a real PostgreSQL: what the store,
// the triggers and the watchers promise together.
//
// TestEngine compares the database with a model after each of many random actions, one at
// a time: of watchers, living, dead and late, and of an operator who changes by hand
// whatever he likes. TestMutants breaks the protocol on purpose and expects the model to
// notice. TestStorm has real watchers and an operator work at the same time, and looks at
// when programs ran.
//
//	go test ./internal/simulation -run TestEngine -rapid.checks=10000
//	go test ./internal/simulation -run TestStorm -storm.changes=10000
package simulation

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "25") // some 20 s; the command line, which is read later, counts more
	goleak.VerifyTestMain(withServer{m})
}

// withServer runs tests that need databases.
type withServer struct{ m *testing.M }

func (w withServer) Run() int { return pgtest.Run(w.m) }
