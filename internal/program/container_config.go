package program

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/client"

	"github.com/d-tsuji/flower/internal/flow"
)

// ContainerConfig says what Container may do with an engine. A container gets nothing of
// the host that is not named here.
type ContainerConfig struct {
	Allow bool   // run containers at all
	Host  string // the engine, as in DOCKER_HOST; empty is the usual socket

	Directories  []Directory // what can be mounted
	Networks     []string    // that a container may join, beside "none"
	Capabilities []string    // of the kernel, that each container has: CHOWN
	Memory       int64       // bytes, at most and unless a task asks for less; 0 is no limit
	CPUs         float64     // likewise

	// Stop ends containers when the watcher shuts down. Otherwise they go on, and whoever
	// runs their tasks next goes on with them.
	Stop bool

	// Ledger is the database. It is needed to run containers, not to check parameters.
	Ledger Ledger
}

// Ledger tells a program whose work goes on outside the database, and can outlive its
// watcher, what has become of the tasks that it works for.
type Ledger interface {
	// Identity is the same for everybody who uses this database, and for nobody else.
	Identity(ctx context.Context) (string, error)
	// Standings returns how tasks stand; those that do not exist are missing.
	Standings(ctx context.Context, keys []flow.TaskKey) ([]flow.Standing, error)
}

// Directory is one of the engine's host that containers may use.
type Directory struct {
	Path string

	// Writable: it can be mounted to write, as a whole only. A container that may write
	// to a directory can make symbolic links in it, and the engine would follow one that
	// is mounted: nothing within it can be.
	Writable bool
}

// ParseDirectories reads directories as in "/srv/in" and, to write, "/srv/out:rw".
func ParseDirectories(texts []string) ([]Directory, error) {
	var dirs []Directory
	for _, text := range texts {
		d := Directory{Path: text}
		d.Path, d.Writable = strings.CutSuffix(text, ":rw")
		d.Path = strings.TrimSuffix(d.Path, ":ro")
		if !path.IsAbs(d.Path) || path.Clean(d.Path) != strings.TrimSuffix(d.Path, "/") || strings.ContainsAny(d.Path, ":\x00") {
			return nil, fmt.Errorf("%s is not a directory like /srv/data, or /srv/data:rw to write", quote(text))
		}
		d.Path = path.Clean(d.Path)
		dirs = append(dirs, d)
	}
	return dirs, nil
}

// ParseMemory reads an amount as in "512m" or "2g"; empty is 0.
func ParseMemory(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n < minMemory {
		return 0, fmt.Errorf("%s is not an amount of memory of at least %s, like 512m or 2g", quote(text), units.BytesSize(minMemory))
	}
	return n, nil
}

// minMemory is the least that an engine takes.
const minMemory = 6 << 20

// sockets are where engines listen: who reaches one of them owns the host.
var sockets = []string{
	"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock",
}

var capability = regexp.MustCompile(`^(CAP_)?[A-Z][A-Z_]+$`)

func (c ContainerConfig) validate() error {
	if !c.Allow {
		return nil // DOCKER_HOST may be there for somebody else
	}
	if c.Host != "" {
		u, err := client.ParseHostURL(c.Host)
		if err != nil || !slices.Contains([]string{"unix", "tcp", "http", "https", "npipe"}, u.Scheme) {
			return errors.New("the engine's address must be like unix:///var/run/docker.sock or tcp://host:2376")
		}
	}
	for _, name := range c.Networks {
		if err := checkNetwork(name); err != nil {
			return err
		}
	}
	for _, name := range c.Capabilities {
		if !capability.MatchString(name) || name == "ALL" {
			return fmt.Errorf("%s is not a capability like CHOWN; ALL is not one", quote(name))
		}
	}
	if c.Memory != 0 && c.Memory < minMemory || c.CPUs < 0 {
		return errors.New("the limits of memory and CPUs must not be negative, nor the memory below 6 MiB")
	}
	return c.validateDirectories()
}

func (c ContainerConfig) validateDirectories() error {
	forbidden := slices.Clone(sockets)
	if own, ok := strings.CutPrefix(c.Host, "unix://"); ok {
		forbidden = append(forbidden, path.Clean(own))
	}
	for i, d := range c.Directories {
		for _, socket := range forbidden {
			if inside(socket, d.Path) {
				return fmt.Errorf("directory %s: the engine's socket is in it, and who reaches that owns the host", d.Path)
			}
		}
		for _, other := range c.Directories[i+1:] {
			if (d.Writable || other.Writable) && (inside(d.Path, other.Path) || inside(other.Path, d.Path)) {
				return fmt.Errorf("directories %s and %s: one is in the other, which then must not be writable", d.Path, other.Path)
			}
		}
	}
	return nil
}

// inside reports whether a clean path is dir or lies below it.
func inside(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// checkNetwork refuses networks that are somebody else's: the host's, a container's.
func checkNetwork(name string) error {
	switch {
	case name == "host":
		return errors.New(`network "host" is the host's own, with everything that listens there: no container gets it`)
	case name == "" || name == "default" || strings.ContainsAny(name, ": /\x00"):
		return fmt.Errorf("%s is not the name of a network like bridge", quote(name))
	}
	return nil
}
