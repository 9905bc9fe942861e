//go:build linux

package process

import "testing"

// What the two processes between cost.
func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		c := Command{Path: "/bin/true", Args: []string{"true"}, Scratch: b.TempDir()}
		if _, err := Run(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}
