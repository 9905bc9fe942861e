package main

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/program"
)

func parse(vars map[string]string, args ...string) (program.ContainerConfig, error) {
	var cfg config
	env := &cli.Env{Name: "watcher", Args: args, Getenv: func(name string) string { return vars[name] }, Stdout: io.Discard}
	err := settings(env, &cfg).Parse(env)
	return cfg.programs.Container, err
}

func TestContainerSettings(t *testing.T) {
	t.Parallel()
	got, err := parse(nil)
	require.NoError(t, err)
	require.Equal(t, program.ContainerConfig{Memory: 2 << 30}, got)

	got, err = parse(map[string]string{"FLOWER_ALLOW_CONTAINER": "true", "DOCKER_HOST": "tcp://engine:2376", "FLOWER_CONTAINER_NETWORK": "bridge, lan"},
		"-container-mount", "/srv/in,/srv/out:rw", "-container-cap", "CHOWN", "-container-memory", "512m", "-container-cpus", "1.5",
		"-container-shutdown", "stop")
	require.NoError(t, err)
	require.Equal(t, program.ContainerConfig{
		Allow: true, Host: "tcp://engine:2376", Directories: []program.Directory{{Path: "/srv/in"}, {Path: "/srv/out", Writable: true}},
		Networks: []string{"bridge", "lan"}, Capabilities: []string{"CHOWN"}, Memory: 512 << 20, CPUs: 1.5, Stop: true,
	}, got)

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-container-mount", "srv"}, `-container-mount (FLOWER_CONTAINER_MOUNT): "srv" is not a directory like /srv/data`},
		{[]string{"-container-memory", "1k"}, `-container-memory (FLOWER_CONTAINER_MEMORY): "1k" is not an amount of memory of at least 6MiB`},
		{[]string{"-container-cpus", "none"}, `-container-cpus (FLOWER_CONTAINER_CPUS): "none" is not a number of at least 0.01`},
		{[]string{"-container-cpus", "NaN"}, `-container-cpus (FLOWER_CONTAINER_CPUS): "NaN" is not a number of at least 0.01`},
		{[]string{"-container-shutdown", "kill"}, `must be one of leave, stop`},
		{[]string{"-container-mount", "/run"}, `directory /run: the engine's socket is in it, and who reaches that owns the host`},
		{[]string{"-container-host", "ssh://engine"}, `the engine's address must be like unix:///var/run/docker.sock`},
	} {
		_, err := parse(nil, append([]string{"-allow-container"}, c.args...)...)
		require.ErrorContains(t, err, c.want)
	}
}
