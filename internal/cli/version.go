package cli

import (
	"runtime"
	"runtime/debug"
)

// version is set by a release build: -ldflags "-X …/internal/cli.version=v1.2.3".
var version string

// Version returns the program's version, its commit where it is known, and Go's.
func Version() string {
	v := version
	var commit string
	if info, ok := debug.ReadBuildInfo(); ok {
		if v == "" {
			v = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	if v == "" {
		v = "(devel)"
	}
	if commit != "" {
		v += " commit " + commit[:min(len(commit), 12)]
	}
	return v + " " + runtime.Version()
}
