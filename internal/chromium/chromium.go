// Package chromium finds the browser in which the pages are tested.
package chromium

import (
	"errors"
	"os"
	"os/exec"
)

// Env is the environment variable that names the browser, for whoever has it elsewhere.
const Env = "FLOWER_CHROMIUM"

// names are what Debian, Ubuntu and Google call it. That of a snap is not among them: it
// may not read what a test writes to /tmp.
var names = []string{"chromium", "google-chrome", "google-chrome-stable", "chromium-headless-shell"}

// Find returns the path of a Chromium.
func Find() (string, error) {
	if path := os.Getenv(Env); path != "" {
		return exec.LookPath(path)
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no Chromium here: go run ./internal/dev/need chromium installs Debian's, or set " + Env)
}
