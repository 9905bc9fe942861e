package definition

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile limits the bytes of a file: ten times what the largest workflow needs.
const maxFile = 16 << 20

// Load reads files, and folders with all that is in them but for what is hidden; "-" is
// stdin. The error is about reading; what is wrong in the files are problems.
func Load(paths []string, stdin io.Reader) ([]Source, Problems, error) {
	var sources []Source
	var problems Problems
	read := map[string]bool{}
	add := func(name string, in io.Reader) error {
		text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
		if err == nil && len(text) > maxFile {
			err = fmt.Errorf("it is larger than %d MiB", maxFile>>20)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		s, p := Parse(name, text)
		sources, problems = append(sources, s...), append(problems, p...)
		return nil
	}
	for _, path := range paths {
		if path == "-" {
			if err := add("-", stdin); err != nil {
				return nil, nil, err
			}
			continue
		}
		files, err := filesOf(path)
		if err != nil {
			return nil, nil, err
		}
		for _, file := range files {
			if read[file] { // named twice, as in dir and dir/file
				continue
			}
			read[file] = true
			if err := addFile(file, add); err != nil {
				return nil, nil, err
			}
		}
	}
	return sources, problems, nil
}

func addFile(name string, add func(string, io.Reader) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	return add(name, f)
}

// filesOf returns a file, or the definitions of a folder, sorted.
func filesOf(path string) ([]string, error) {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		hidden := name != path && strings.HasPrefix(d.Name(), ".")
		switch {
		case err != nil:
			return err
		case hidden && d.IsDir():
			return fs.SkipDir
		case hidden || d.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name))):
			return nil
		}
		// A link may be one to a folder.
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			return err
		}
		files = append(files, name)
		return nil
	})
	if err == nil && len(files) == 0 {
		err = errors.New("it has no .yaml, .yml or .json file")
	}
	if err != nil {
		return nil, fmt.Errorf("read folder %s: %w", path, err)
	}
	return files, nil
}

// FileName returns a name for the file of a workflow, which no other has.
func FileName(id, format string) string {
	name := url.PathEscape(id)
	if strings.HasPrefix(name, ".") { // it would be hidden
		name = "%2E" + name[1:]
	}
	const most = 200 // of 255 bytes, which file systems take
	if len(name) > most {
		sum := sha256.Sum256([]byte(id))
		name = fmt.Sprintf("%s-%x", name[:most], sum[:8])
	}
	return name + "." + format
}
