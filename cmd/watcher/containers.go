package main

import (
	"fmt"
	"strconv"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/program"
)

// containerSettings adds what containers may do.
func containerSettings(flags *cli.Flags, c *program.ContainerConfig) {
	var dirs []string
	var memory, cpus, shutdown string
	flags.Group("Containers")
	flags.Var(cli.Bool(&c.Allow), "allow-container", "FLOWER_ALLOW_CONTAINER",
		"let tasks run containers of any image; whoever defines workflows says which")
	flags.Var(cli.Text(&c.Host, ""), "container-host URL", "DOCKER_HOST",
		"the container engine; empty is unix:///var/run/docker.sock")
	flags.Var(cli.List(&dirs), "container-mount DIR,…", "FLOWER_CONTAINER_MOUNT",
		"directories of the engine's host that containers may read, or with :rw write: /srv/in,/srv/out:rw")
	flags.Var(cli.List(&c.Networks), "container-network NAME,…", "FLOWER_CONTAINER_NETWORK",
		"networks that containers may join, such as bridge; empty is none")
	flags.Var(cli.List(&c.Capabilities), "container-cap NAME,…", "FLOWER_CONTAINER_CAP",
		"capabilities that each container has, such as CHOWN; empty is none")
	flags.Var(cli.Text(&memory, "2g"), "container-memory SIZE", "FLOWER_CONTAINER_MEMORY",
		"the most that a container may use, and what it has unless its task asks for less")
	flags.Var(cli.Text(&cpus, ""), "container-cpus N", "FLOWER_CONTAINER_CPUS",
		"likewise processors, as in 1.5; empty is all")
	flags.Var(cli.OneOf(&shutdown, "leave", "leave", "stop"), "container-shutdown HOW", "FLOWER_CONTAINER_SHUTDOWN",
		"what becomes of running containers when the watcher ends: leave (the next one goes on with them), stop")
	flags.Needs("allow-container", "container-mount", "container-network", "container-cap",
		"container-memory", "container-cpus", "container-shutdown") // others use DOCKER_HOST, too
	flags.Check(func() (err error) {
		c.Stop = shutdown == "stop"
		if c.Directories, err = program.ParseDirectories(dirs); err != nil {
			return fmt.Errorf("-container-mount (FLOWER_CONTAINER_MOUNT): %w", err)
		}
		if c.Memory, err = program.ParseMemory(memory); err != nil {
			return fmt.Errorf("-container-memory (FLOWER_CONTAINER_MEMORY): %w", err)
		}
		if cpus == "" {
			return nil
		}
		c.CPUs, err = strconv.ParseFloat(cpus, 64)
		if inRange := c.CPUs >= 0.01 && c.CPUs <= 100_000; err != nil || !inRange { // NaN is in none
			return fmt.Errorf("-container-cpus (FLOWER_CONTAINER_CPUS): %q is not a number of at least 0.01", cpus)
		}
		return nil
	})
}
