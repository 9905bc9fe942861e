//go:build unix

package reload

import (
	"os"
	"syscall"
)

// identity tells a file from another one that has taken its place and was written at the
// same time.
func identity(info os.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
