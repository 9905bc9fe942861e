package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/mux"
)

//go:embed static
var static embed.FS

//go:embed templates
var templates embed.FS

// files are what the pages load, as they are sent.
type files struct {
	build  string // names what is embedded: another one is in the URL after a change
	byName map[string]func() file
}

type file struct {
	kind   string
	plain  []byte
	zipped []byte // nil where that saves nothing
}

// newFiles knows all files. Each is compressed once, when it is first asked for: register
// starts in half the time. Stylesheets are one: a browser asks once, and what repeats is
// compressed once.
func newFiles(root fs.FS, build string) files {
	all := files{build: build, byName: map[string]func() file{}}
	var sheet []byte
	walk(root, func(name string, text []byte) {
		if path.Ext(name) == ".css" {
			sheet = append(sheet, text...)
			return
		}
		all.byName[name] = sync.OnceValue(func() file { return newFile(name, text) })
	})
	all.byName["app.css"] = sync.OnceValue(func() file { return newFile("app.css", sheet) })
	return all
}

func newFile(name string, text []byte) file {
	text = lean(name, text)
	f := file{kind: mime.TypeByExtension(path.Ext(name)), plain: text}
	if zipped := zip(text, gzip.BestCompression); len(zipped) < len(text)*9/10 {
		f.zipped = zipped
	}
	return f
}

var (
	blockComment = regexp.MustCompile(`(?m)^[ \t]*/\*[^*](?s:.*?)\*/[ \t]*\n?|^[ \t]*/\*\*(?s:.*?)\*/[ \t]*\n`)
	trailing     = regexp.MustCompile(`(?m)([;,{]) // .*$`)
	lineComment  = regexp.MustCompile(`(?m)^[ \t]*//.*\n`)
	indentation  = regexp.MustCompile(`(?m)^\s+`)
	around       = regexp.MustCompile(`\s*([{};,>]|: )\s*`) // what CSS needs no blanks around
)

// lean takes comments and blanks out of what we wrote: a sixth of what a browser would
// load. It is no parser, so that no string of ours in a script may go over several lines or
// have " // " in it, and none in the stylesheet what ends a declaration; a test keeps that.
func lean(name string, text []byte) []byte {
	if strings.HasPrefix(name, "vendor/") {
		return text
	}
	switch path.Ext(name) {
	case ".css":
		text = blockComment.ReplaceAll(text, nil)
		return bytes.ReplaceAll(around.ReplaceAllFunc(text, bytes.TrimSpace), []byte(";}"), []byte("}"))
	case ".js":
		text = blockComment.ReplaceAll(text, nil)
		text = lineComment.ReplaceAll(text, nil)
		text = trailing.ReplaceAll(text, []byte("$1"))
	default:
		return text
	}
	return indentation.ReplaceAll(text, nil)
}

func walk(root fs.FS, each func(name string, text []byte)) {
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			each(name, must(fs.ReadFile(root, name)))
		}
		return err
	})
	if err != nil {
		panic(err)
	}
}

// buildID names everything that makes up a page: when it changes, open pages are old.
func buildID(version string) string {
	h := sha256.New()
	h.Write([]byte(version))
	for _, root := range []fs.FS{static, templates} {
		walk(root, func(name string, text []byte) {
			sum := sha256.Sum256(text)
			h.Write([]byte(name))
			h.Write(sum[:])
		})
	}
	return hex.EncodeToString(h.Sum(nil))[:10]
}

func zip(text []byte, level int) []byte {
	var b bytes.Buffer
	w := must(gzip.NewWriterLevel(&b, level))
	must(w.Write(text))
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// url returns where a browser finds a file. It panics where there is none of that name.
func (f files) url(base, name string) string {
	if _, ok := f.byName[name]; !ok {
		panic("there is no file static/" + name)
	}
	return base + "/static/" + f.build + "/" + name
}

// serveFile answers with a file, by its exact name: no path is made of what was sent. A
// page that was open during an update asks for files of the build before; it gets the
// present ones, not to be kept under that name.
func (s *Site) serveFile(w http.ResponseWriter, r *http.Request) {
	vars := mux.Vars(r)
	made, ok := s.files.byName[vars["name"]]
	if !ok {
		s.fail(w, r, notFound("there is no file of this name"))
		return
	}
	f := made()
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache")
	if vars["build"] == s.files.build {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	body := f.plain
	if f.zipped != nil && acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.zipped
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // an error means that the client is gone
}

func acceptsGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(coding, ";")
		if strings.TrimSpace(name) == "gzip" {
			return strings.TrimSpace(q) != "q=0"
		}
	}
	return false
}
