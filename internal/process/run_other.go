//go:build !linux && !darwin

package process

import (
	"context"
	"fmt"
	"runtime"
)

// Run does not run anything where there is no way to end all of it.
func Run(context.Context, Command) (Exit, error) {
	return Exit{}, fmt.Errorf("commands cannot be run on %s", runtime.GOOS)
}

// Supervise does nothing.
func Supervise() {}

// Conceal does nothing.
func Conceal() {}

// CanWrite knows nothing here.
func CanWrite(string) bool { return false }
