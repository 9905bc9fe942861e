// Package enginetest finds a container engine for tests that want a real one, and gives it
// an image. Most machines have none: then such a test is skipped, and says what it lacks.
package enginetest

import (
	"archive/tar"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// Image is what tests run in containers. It has one file, the program /inside, whose
// source says what it can do.
const Image = "flower-test-inside:1"

// Engine is an engine of this machine, which has Image.
type Engine struct {
	Host   string // as in DOCKER_HOST
	Client *client.Client
}

// Find returns the engine of DOCKER_HOST, or of the usual socket. The test is skipped if
// none answers there, or if that is another machine's, whose directories are not the
// test's.
func Find(t *testing.T) Engine {
	t.Helper()
	host := cmp.Or(os.Getenv("DOCKER_HOST"), client.DefaultDockerHost)
	socket, local := strings.CutPrefix(host, "unix://")
	if !local {
		t.Skipf("the container engine %s is not of this machine: set DOCKER_HOST to a socket to run this test", host)
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Skipf("no container engine answers at %s: start one, or set DOCKER_HOST, to run this test", host)
	}
	_ = conn.Close()
	api, err := client.New(client.WithHost(host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	once.Do(func() { imported = importImage(t, api) })
	if imported != nil {
		t.Fatalf("give the engine at %s an image: %v", host, imported)
	}
	return Engine{host, api}
}

var (
	once     sync.Once
	imported error
)

// importImage builds the program of the image, and hands it to the engine as a tar file.
// Nothing comes from a registry.
func importImage(t *testing.T, api *client.Client) error {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	binary := filepath.Join(t.TempDir(), "inside")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./testdata/inside")
	build.Dir = filepath.Dir(here)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	if err = w.WriteHeader(&tar.Header{Name: "inside", Mode: 0o755, Size: int64(len(content))}); err != nil {
		return err
	}
	if _, err = w.Write(content); err != nil {
		return err
	}
	if err = w.Close(); err != nil {
		return err
	}
	source := client.ImageImportSource{Source: &image, SourceName: "-"}
	answer, err := api.ImageImport(t.Context(), source, Image, client.ImageImportOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }()
	_, err = io.Copy(io.Discard, answer)
	return err
}
