package program

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestContainerConfig_Validate(t *testing.T) {
	t.Parallel()
	dirs := func(texts ...string) ContainerConfig {
		list, err := ParseDirectories(texts)
		require.NoError(t, err)
		return ContainerConfig{Directories: list}
	}
	for name, c := range map[string]struct {
		cfg  ContainerConfig
		want string // in the error; empty is none
	}{
		"nothing":                    {ContainerConfig{}, ""},
		"a socket":                   {ContainerConfig{Host: "unix:///tmp/engine.sock"}, ""},
		"a host":                     {ContainerConfig{Host: "tcp://engine:2376"}, ""},
		"no address":                 {ContainerConfig{Host: "engine"}, "must be like unix:///var/run/docker.sock"},
		"ssh":                        {ContainerConfig{Host: "ssh://engine"}, "must be like unix:///var/run/docker.sock"},
		"directories":                {dirs("/srv/a", "/srv/b:rw", "/srv/c:ro"), ""},
		"the same to read":           {dirs("/srv", "/srv/b"), ""},
		"a writable one in another":  {dirs("/srv", "/srv/b:rw"), "one is in the other"},
		"one in a writable one":      {dirs("/srv:rw", "/srv/b"), "one is in the other"},
		"the same twice":             {dirs("/srv:rw", "/srv:rw"), "one is in the other"},
		"names that begin alike":     {dirs("/srv/a:rw", "/srv/ab"), ""},
		"the socket":                 {dirs("/var/run/docker.sock"), "who reaches that owns the host"},
		"a directory of the socket":  {dirs("/run/"), "who reaches that owns the host"},
		"one far above":              {dirs("/var"), "who reaches that owns the host"},
		"another engine's socket":    {ContainerConfig{Host: "unix:///srv/x/s", Directories: dirs("/srv").Directories}, "who reaches that owns the host"},
		"networks":                   {ContainerConfig{Networks: []string{"bridge", "my-lan"}}, ""},
		"the host's network":         {ContainerConfig{Networks: []string{"host"}}, "no container gets it"},
		"another container's":        {ContainerConfig{Networks: []string{"container:db"}}, "is not the name of a network"},
		"capabilities":               {ContainerConfig{Capabilities: []string{"CHOWN", "CAP_SETUID"}}, ""},
		"all capabilities":           {ContainerConfig{Capabilities: []string{"ALL"}}, "ALL is not one"},
		"no capability":              {ContainerConfig{Capabilities: []string{"chown"}}, "is not a capability like CHOWN"},
		"too little memory":          {ContainerConfig{Memory: 1}, "6 MiB"},
		"less than no CPU":           {ContainerConfig{CPUs: -1}, "must not be negative"},
		"everything but not allowed": {ContainerConfig{Host: "engine", Memory: -1, Networks: []string{"host"}}, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.cfg.Allow = c.want != "-"
			err := Config{Container: c.cfg}.Validate()
			if c.want == "" || c.want == "-" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestParseDirectories(t *testing.T) {
	t.Parallel()
	got, err := ParseDirectories([]string{"/srv/a", "/srv/b/:rw", "/srv/c:ro"})
	require.NoError(t, err)
	require.Equal(t, []Directory{{Path: "/srv/a"}, {Path: "/srv/b", Writable: true}, {Path: "/srv/c"}}, got)
	for _, wrong := range []string{"", "/", "srv", "./srv", "/srv/../etc", "/srv//a", "/srv/.", "/srv:xx", "/srv:/a", "/a\x00b", ":rw"} {
		_, err := ParseDirectories([]string{wrong})
		require.ErrorContains(t, err, "is not a directory like /srv/data", wrong)
	}
}

func TestParseMemory(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"": 0, "512m": 512 << 20, "2g": 2 << 30, "1GiB": 1 << 30, "6291456": 6 << 20} {
		got, err := ParseMemory(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, wrong := range []string{"0", "512", "-1g", "much", "1x", "NaN", "1e99g"} {
		_, err := ParseMemory(wrong)
		require.Error(t, err, wrong)
	}
}

// What is wrong for every watcher is refused at registration.
func TestContainer_CheckedAtRegistration(t *testing.T) {
	t.Parallel()
	for parameters, want := range map[string]string{
		`{"image": "app:1", "command": ["a"], "env": {"A": "1"}, "mounts": ["/a:/b:rw"], "memory": "1g", "workdir": "/x"}`: "",
		`{"image": "registry.example.com:5000/team/app@sha256:` + strings.Repeat("a", 64) + `"}`:                           "",
		`{"image": "${{ params.image }}"}`: "",
		`{}`:                               `parameter "image": it is missing`,
		`{"image": "Not An Image"}`:        `parameter "image": "Not An Image" is not the name of an image like alpine:3`,
		`{"image": "app:1", "command": "sh -c x"}`:                `parameter "command": a string is not a JSON array of strings`,
		`{"image": "app:1", "env": {"A=B": "1"}}`:                 `parameter "env": "A=B" cannot be a variable`,
		`{"image": "app:1", "env": {"A": "\u0000"}}`:              `parameter "env": "A" cannot be a variable`,
		`{"image": "app:1", "env": {"FLOWER_FLOW": "x"}}`:         `parameter "env": "FLOWER_FLOW": names that begin with FLOWER_ are Flower's own`,
		`{"image": "app:1", "mounts": ["/a"]}`:                    `parameter "mounts": "/a" is not like /srv/data:/data`,
		`{"image": "app:1", "mounts": ["/a:/b:z"]}`:               `parameter "mounts": "/a:/b:z" is not like /srv/data:/data`,
		`{"image": "app:1", "mounts": ["data:/b"]}`:               `both paths must be absolute`,
		`{"image": "app:1", "mounts": ["/a:/"]}`:                  `both paths must be absolute, and the second not /`,
		`{"image": "app:1", "network": "host"}`:                   `parameter "network": network "host" is the host's own`,
		`{"image": "app:1", "network": "container:x"}`:            `parameter "network": "container:x" is not the name of a network`,
		`{"image": "app:1", "memory": "lots"}`:                    `parameter "memory": "lots" is not an amount of memory`,
		`{"image": "app:1", "cpus": 0}`:                           `parameter "cpus": 0 is not a number of at least 0.01`,
		`{"image": "app:1", "workdir": "x"}`:                      `parameter "workdir": "x" is not an absolute path`,
		`{"image": "app:1", "pull": "sometimes"}`:                 `parameter "pull": "sometimes" is not one of missing, always, never`,
		`{"image": "app:1", "privileged": true}`:                  `parameter "privileged": this program does not know it`,
		`{"image": "app:1", "mounts": ["/a:/b"], "network": "x"}`: "", // whether a watcher allows it is the watcher's to say
	} {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "Container", Parameters: json.RawMessage(parameters)}}}
		err := Default(Config{}).CheckWorkflow(w, nil)
		if want == "" {
			require.NoError(t, err, parameters)
			continue
		}
		require.ErrorContains(t, err, want, parameters)
		require.ErrorAs(t, err, new(*flow.InvalidError))
	}
}

// A request is data from outside: it decides nothing about a container.
func TestContainer_RequestsSetNothing(t *testing.T) {
	t.Parallel()
	w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "Container", Parameters: json.RawMessage(`{"image": "app:1"}`)}}}
	for _, p := range (&containers{}).Parameters() {
		err := Default(Config{}).CheckWorkflow(w, json.RawMessage(`{"`+p.Name+`": "x"}`))
		require.ErrorContains(t, err, `parameter "`+p.Name+`": only the definition can set it`)
	}
}

func TestContainer_WhatAWatcherAllows(t *testing.T) {
	t.Parallel()
	c := newContainers(ContainerConfig{
		Directories: []Directory{{Path: "/srv/in"}, {Path: "/srv/out", Writable: true}},
		Networks:    []string{"bridge"}, Memory: 1 << 30, CPUs: 2,
	})
	for parameters, want := range map[string]string{
		`"mounts": ["/srv/in:/m"]`:              "",
		`"mounts": ["/srv/in/a/b:/m"]`:          "",
		`"mounts": ["/srv/in/:/m:ro"]`:          "",
		`"mounts": ["/srv/out:/m"]`:             "",
		`"mounts": ["/srv/out:/m:rw"]`:          "",
		`"mounts": ["/srv/in:/m:rw"]`:           `"/srv/in:/m:rw" is not allowed by this watcher (-container-mount /srv/in:rw; it has /srv/in to read, /srv/out:rw as a whole)`,
		`"mounts": ["/srv/out/a:/m"]`:           "is not allowed by this watcher", // it may be a link that a container has made
		`"mounts": ["/srv/out/a:/m:rw"]`:        "is not allowed by this watcher",
		`"mounts": ["/srv/in/../../etc:/m"]`:    "is not allowed by this watcher (-container-mount /etc;",
		`"mounts": ["/srv/inner:/m"]`:           "is not allowed by this watcher",
		`"mounts": ["/srv:/m"]`:                 "is not allowed by this watcher",
		`"mounts": ["/var/run/docker.sock:/m"]`: "is not allowed by this watcher",
		`"network": "none"`:                     "",
		`"network": "bridge"`:                   "",
		`"network": "lan"`:                      `parameter "network": "lan" is not allowed by this watcher (-container-network lan; it has bridge)`,
		`"memory": "1g"`:                        "",
		`"memory": "1025m"`:                     `parameter "memory": 1.001GiB is not allowed by this watcher (-container-memory; it has at most 1GiB)`,
		`"cpus": 2`:                             "",
		`"cpus": 2.5`:                           `parameter "cpus": 2.5 is not allowed by this watcher (-container-cpus; it has at most 2)`,
	} {
		task := withParameters(attempt(1), `{"image": "app:1", `+parameters+`}`)
		_, params, err := Set{"Container": c}.prepare("Container", task.Parameters)
		require.NoError(t, err, parameters)
		_, err = c.plan(Input{Attempt: Attempt{Task: task}, Params: params}, "db")
		if want == "" {
			require.NoError(t, err, parameters)
			continue
		}
		require.ErrorContains(t, err, want, parameters)
		require.ErrorAs(t, err, new(*flow.InvalidError))
	}
	nothing := newContainers(ContainerConfig{})
	_, err := nothing.planMount("/srv/in:/m")
	require.EqualError(t, err, `parameter "mounts": "/srv/in:/m" is not allowed by this watcher (-container-mount /srv/in; it has none)`)
}

func TestContainer_IsOffUnlessAllowed(t *testing.T) {
	t.Parallel()
	require.NotContains(t, Default(Config{}).Enabled().Names(), "Container")
	require.Contains(t, Default(Config{Container: ContainerConfig{Allow: true}}).Enabled().Names(), "Container")
}

// No mount gets out of what is allowed, however it is written.
func FuzzContainerMounts(f *testing.F) {
	for _, s := range []string{"/srv/in:/m", "/srv/in/../out:/m:rw", "//srv//in:/m", "/srv/in\x00:/m", "/:/m", "/srv/out/x:/m:rw", "/srv/in/./..:/m"} {
		f.Add(s)
	}
	c := newContainers(ContainerConfig{Directories: []Directory{{Path: "/srv/in"}, {Path: "/srv/out", Writable: true}}})
	f.Fuzz(func(t *testing.T, text string) {
		m, err := c.planMount(text)
		if err != nil {
			require.ErrorAs(t, err, new(*flow.InvalidError))
			return
		}
		require.Equal(t, path.Clean(m.Source), m.Source)
		require.True(t, path.IsAbs(m.Target) && m.Target != "/", m.Target)
		require.NotContains(t, m.Source+m.Target, "\x00")
		if m.Source != "/srv/out" {
			require.True(t, m.ReadOnly)
			require.True(t, m.Source == "/srv/in" || strings.HasPrefix(m.Source, "/srv/in/"), m.Source)
		}
	})
}
