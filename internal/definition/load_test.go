package definition

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// loaded returns the ids that files have.
func loaded(t *testing.T, stdin string, paths ...string) (ids []string, problems Problems) {
	t.Helper()
	sources, problems, err := Load(paths, strings.NewReader(stdin))
	require.NoError(t, err)
	for _, s := range sources {
		ids = append(ids, string(s.ID))
	}
	return ids, problems
}

// files makes files of a workflow each, which is called as its file is.
func files(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte("taskId: "+filepath.Base(name)+"\ntasks: [{program: NoOp}]"), 0o600))
	}
	return dir
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := files(t, "b.yaml", "a.yml", "in/c.YAML", "in/.d.yaml", ".git/e.yaml", "README.md", "in/.hidden/f.yaml")
	const stdin = "taskId: stdin\ntasks: [{program: NoOp}]"
	all := []string{"a.yml", "b.yaml", "c.YAML"}

	ids, problems := loaded(t, stdin, dir)
	require.Equal(t, all, ids, "sorted, without what is hidden")
	require.Empty(t, problems)
	ids, _ = loaded(t, stdin, "-", dir, filepath.Join(dir, "b.yaml"), dir+"/in/../b.yaml")
	require.Equal(t, append([]string{"stdin"}, all...), ids, "each once, and the others after stdin, too")
	ids, _ = loaded(t, stdin, filepath.Join(dir, ".git"), filepath.Join(dir, "README.md"))
	require.Equal(t, []string{"e.yaml", "README.md"}, ids, "what is named is meant")

	require.NoError(t, os.Symlink(filepath.Join(dir, "b.yaml"), filepath.Join(dir, "in", "link.yaml")))
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "in", "loop.yaml")))
	ids, _ = loaded(t, stdin, filepath.Join(dir, "in"))
	require.Equal(t, []string{"c.YAML", "b.yaml"}, ids, "by a link to a file; one to a folder is none")

	_, problems = loaded(t, "tasks: 7", "-")
	require.Equal(t, []string{"-:1:1: the workflow has no taskId: it names it", "-:1:8: tasks must be a list, as in - program: NoOp, and this is a number"},
		strings.Split(problems.Error(), "\n"))
}

func TestLoad_WhatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := files(t, "a.yaml", "none/README.md")
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "none", "broken.yaml")))
	for path, want := range map[string]string{
		filepath.Join(dir, "nothing"): "no such file",
		filepath.Join(dir, "none"):    "read folder",
		"-":                           "read -: it is larger than 16 MiB",
	} {
		sources, problems, err := Load([]string{filepath.Join(dir, "a.yaml"), path}, strings.NewReader(strings.Repeat("#", maxFile+1)))
		require.ErrorContains(t, err, want)
		require.Empty(t, sources)
		require.Empty(t, problems)
	}
	require.NoError(t, os.Remove(filepath.Join(dir, "none", "broken.yaml")))
	_, _, err := Load([]string{filepath.Join(dir, "none")}, nil)
	require.ErrorContains(t, err, "it has no .yaml, .yml or .json file")
}
