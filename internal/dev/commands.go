package main

import (
	"embed"
	"os"
	"path/filepath"
)

// sampleCommands are what the workflow sample-etl runs.
//
//go:embed commands
var sampleCommands embed.FS

// writeCommands puts the commands of the sample where watcher finds them, beside whatever
// somebody has put there, and returns that directory. Tasks can run nothing else.
func writeCommands() (dir string, err error) {
	if dir, err = filepath.Abs(commandsDir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	files, err := sampleCommands.ReadDir("commands")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		text, err := sampleCommands.ReadFile("commands/" + f.Name())
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), text, 0o755); err != nil {
			return "", err
		}
	}
	return dir, nil
}
