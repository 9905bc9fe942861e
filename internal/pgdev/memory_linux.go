package pgdev

import (
	"os"
	"syscall"
)

// memoryRoom is what MemoryDir asks for. A container often has 64 MiB there.
const memoryRoom = 4 << 30

// MemoryDir returns a directory whose files live in memory and which has room for the data
// of tests, or "" where there is none, or where TMPDIR says what the user wants. Measured
// on a machine with a busy disk: a start takes 0.6 s there and 1.7 s on disk, and a
// database is made in 12 ms instead of 100.
func MemoryDir() string {
	const dir = "/dev/shm"
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(dir, &fs) != nil {
		return ""
	}
	if fs.Bavail*uint64(fs.Bsize) < memoryRoom {
		return ""
	}
	probe, err := os.MkdirTemp(dir, tmpPattern)
	if err != nil || os.Remove(probe) != nil {
		return ""
	}
	return dir
}
