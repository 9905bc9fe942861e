package program

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/d-tsuji/flower/internal/flow"
)

// Bounds that every container has, whatever its task asks for.
const (
	maxProcesses = 1024
	// The engine keeps what a container prints in files, until it is removed.
	logFileSize, logFiles = "64m", "2"
)

// plan is what a task asks for, and may have.
type plan struct {
	create client.ContainerCreateOptions // but for its name
	pull   string
	digest string // of the parameters: a container made for others is not this task's
}

// bind is one entry of mounts: SOURCE:TARGET[:ro|:rw].
type bind struct {
	source, target string
	write          bool
}

func parseBind(text string) (bind, error) {
	parts := strings.Split(text, ":")
	b := bind{write: len(parts) == 3 && parts[2] == "rw"}
	if len(parts) < 2 || len(parts) > 3 || len(parts) == 3 && parts[2] != "rw" && parts[2] != "ro" {
		return bind{}, fmt.Errorf("%s is not like /srv/data:/data, or /srv/data:/data:rw to write", quote(text))
	}
	b.source, b.target = path.Clean(parts[0]), path.Clean(parts[1])
	if !path.IsAbs(parts[0]) || !path.IsAbs(parts[1]) || b.target == "/" || strings.Contains(text, "\x00") {
		return bind{}, fmt.Errorf("%s: both paths must be absolute, and the second not /", quote(text))
	}
	return b, nil
}

// checkContainer has the rules that hold for every watcher, whatever it allows.
func checkContainer(v Values) error {
	check := func(name string, err error) error {
		if err == nil || v.Open(name) { // what is open is zero
			return nil
		}
		return invalid(name, err.Error())
	}
	var errs []error
	if _, err := reference.ParseAnyReference(v.String("image")); err != nil {
		errs = append(errs, check("image", fmt.Errorf("%s is not the name of an image like alpine:3 (%w)", quote(v.String("image")), err)))
	}
	for _, name := range slices.Sorted(maps.Keys(v.Map("env"))) {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(v.Map("env")[name], "\x00"):
			errs = append(errs, check("env", fmt.Errorf("%s cannot be a variable: a name has no =, and nothing has U+0000", quote(name))))
		case strings.HasPrefix(name, "FLOWER_"):
			errs = append(errs, check("env", fmt.Errorf("%s: names that begin with FLOWER_ are Flower's own", quote(name))))
		}
	}
	for _, text := range v.Strings("mounts") {
		_, err := parseBind(text)
		errs = append(errs, check("mounts", err))
	}
	errs = append(errs, check("network", checkNetwork(v.String("network"))))
	_, err := ParseMemory(v.String("memory"))
	errs = append(errs, check("memory", err))
	if dir := v.String("workdir"); dir != "" && !path.IsAbs(dir) {
		errs = append(errs, check("workdir", fmt.Errorf("%s is not an absolute path", quote(dir))))
	}
	for _, err := range errs {
		if err != nil { // one at a time: it is a person who reads them
			return err
		}
	}
	return nil
}

// plan makes a container of parameters, or says which setting of the watcher it lacks.
func (c *containers) plan(in Input, identity string) (plan, error) {
	v := in.Params
	host := container.HostConfig{
		NetworkMode:   container.NetworkMode(v.String("network")),
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": logFileSize, "max-file": logFiles}},
		CapDrop:       []string{"ALL"},
		CapAdd:        c.cfg.Capabilities,
		SecurityOpt:   []string{"no-new-privileges"},
		IpcMode:       container.IPCModePrivate,
	}
	host.PidsLimit = new(int64(maxProcesses))
	if err := c.planLimits(v, &host); err != nil {
		return plan{}, err
	}
	if name := v.String("network"); name != "none" && !slices.Contains(c.cfg.Networks, name) {
		return plan{}, notAllowed("network", quote(name), "-container-network "+name, c.cfg.Networks)
	}
	for _, text := range v.Strings("mounts") {
		m, err := c.planMount(text)
		if err != nil {
			return plan{}, err
		}
		host.Mounts = append(host.Mounts, m)
	}
	p := plan{pull: v.String("pull"), digest: digest(v)}
	p.create.HostConfig = &host
	p.create.Config = &container.Config{
		Image:       v.String("image"),
		Cmd:         v.Strings("command"),
		Entrypoint:  v.Strings("entrypoint"),
		Env:         environment(in),
		User:        v.String("user"),
		WorkingDir:  v.String("workdir"),
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		Labels:      labels(in.Task, identity, p.digest),
	}
	return p, nil
}

func (c *containers) planLimits(v Values, host *container.HostConfig) error {
	host.Memory = c.cfg.Memory
	if asked, _ := ParseMemory(v.String("memory")); asked > 0 {
		if host.Memory > 0 && asked > host.Memory {
			return notAllowed("memory", units.BytesSize(float64(asked)), "-container-memory", []string{"at most " + units.BytesSize(float64(host.Memory))})
		}
		host.Memory = asked
	}
	host.MemorySwap = host.Memory // no swap, or a limit of memory would be none
	cpus := c.cfg.CPUs
	if asked := v.Float("cpus"); asked > 0 {
		if cpus > 0 && asked > cpus {
			return notAllowed("cpus", decimal(asked), "-container-cpus", []string{"at most " + decimal(cpus)})
		}
		cpus = asked
	}
	host.NanoCPUs = int64(math.Round(cpus * 1e9))
	return nil
}

// planMount allows what the watcher's settings do. The paths are those of the engine's
// host, which the watcher may not see: so they are compared as they are written, and
// nothing can be mounted where a container could have made a symbolic link.
func (c *containers) planMount(text string) (mount.Mount, error) {
	b, err := parseBind(text)
	if err != nil {
		return mount.Mount{}, invalid("mounts", err.Error())
	}
	var allowed []string
	for _, d := range c.cfg.Directories {
		if d.Path == b.source && (d.Writable || !b.write) || inside(b.source, d.Path) && !d.Writable && !b.write {
			return mount.Mount{Type: mount.TypeBind, Source: b.source, Target: b.target, ReadOnly: !b.write}, nil
		}
		if d.Writable {
			allowed = append(allowed, d.Path+":rw as a whole")
		} else {
			allowed = append(allowed, d.Path+" to read")
		}
	}
	setting := "-container-mount " + b.source
	if b.write {
		setting += ":rw"
	}
	return mount.Mount{}, notAllowed("mounts", quote(text), setting, allowed)
}

// notAllowed says what the watcher would have to be started with.
func notAllowed(parameter, value, setting string, allowed []string) error {
	if len(allowed) == 0 {
		allowed = []string{"none"}
	}
	return invalid(parameter, fmt.Sprintf("%s is not allowed by this watcher (%s; it has %s)",
		value, setting, strings.Join(allowed, ", ")))
}

// environment is what a container finds.
func environment(in Input) []string {
	vars := variables(in.Task)
	maps.Copy(vars, in.Params.Map("env")) // which has no name of those
	return assignments(vars)
}

// assignments are NAME=value, in one order.
func assignments(vars map[string]string) []string {
	list := make([]string, 0, len(vars))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		list = append(list, name+"="+vars[name])
	}
	return list
}

// variables tell the work which attempt it is; the map is the caller's.
func variables(t flow.Task) map[string]string {
	return map[string]string{
		"FLOWER_FLOW":            string(t.Flow),
		"FLOWER_SEQ":             strconv.Itoa(t.Seq),
		"FLOWER_ATTEMPT":         strconv.Itoa(t.Attempt),
		"FLOWER_IDEMPOTENCY_KEY": t.IdempotencyKey(),
	}
}

// digest is the same for the same parameters.
func digest(v Values) string {
	given := maps.Clone(v)
	maps.DeleteFunc(given, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(given)
	if err != nil {
		panic(err) // they came from JSON
	}
	return hash(string(text))
}

func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:8])
}
