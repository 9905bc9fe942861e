//go:build unix && !linux

package pgdev

// MemoryDir returns a directory whose files live in memory, which this system has not: "".
func MemoryDir() string { return "" }
