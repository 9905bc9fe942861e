package pgtest_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// Nothing may be left running when the tests have ended: packages look for leaked
// goroutines of their own.
func TestMain(m *testing.M) {
	code := pgtest.Run(m)
	if err := goleak.Find(); code == 0 && err != nil {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}
