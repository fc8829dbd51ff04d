// Package plash_test holds the rules that no single package can hold: who may
// import whom, and who may end the process or write to its streams.
package plash_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ihucos/plash"

// mayImport says which packages of this module a package may import. Imports go
// one way, from the commands to the store:
//
//	cmd → build, importexport → runtime → overlay, fusefs → cas
//
// with container, the records, on top of cas. A package stands for those below
// it too, unless they have a line of their own.
var mayImport = map[string][]string{
	"cmd":                      {"build", "importexport", "runtime", "overlay", "fusefs", "container", "cas", "replay", "spelling"},
	"bench":                    {"build", "importexport", "runtime", "overlay", "fusefs", "container", "cas"},
	"build":                    {"runtime", "container", "cas", "spelling"},
	"importexport":             {"runtime", "overlay", "container", "cas", "spelling"},
	"importexport/enginetest":  {},
	"importexport/fetch":       {"importexport/progress"},
	"importexport/filesystem":  {"importexport/output", "importexport/progress", "cas"},
	"importexport/image":       {"importexport/output", "importexport/progress", "container", "cas"},
	"importexport/imageserver": {},
	"importexport/output":      {},
	"importexport/progress":    {},
	"importexport/registry":    {"importexport/fetch", "importexport/image", "importexport/progress", "cas"},
	"runtime":                  {"overlay", "fusefs", "container", "cas", "replay"},
	"runtime/bundle":           {"runtime/program", "runtime/share", "container"},
	"runtime/handover":         {},
	"runtime/hosttest":         {"runtime/seccomp"},
	"runtime/ids":              {"runtime/program"},
	"runtime/program":          {"runtime/share", "replay"},
	"runtime/proot":            {"runtime/handover", "runtime/program", "runtime/reaper", "runtime/share"},
	"runtime/reaper":           {},
	"runtime/rootemu":          {"runtime/seccomp", "overlay", "cas"},
	"runtime/seccomp":          {},
	"runtime/share":            {},
	"overlay":                  {"cas", "mountfd", "replay"},
	"overlay/copytree":         {"overlay", "cas"},
	"overlay/treetest":         {},
	"fusefs":                   {"cas", "mountfd", "replay"},
	"fusefs/posixtest":         {},
	"container":                {"cas"},
	"cas":                      {},
	"cas/erofs":                {},
	"cas/tarstream":            {},
	"mountfd":                  {},
	"mountfd/leftover":         {},
	"replay":                   {},
	"spelling":                 {},
}

// never gives the reasons of the rules that are most tempting to break.
var never = map[[2]string]string{
	{"overlay", "fusefs"}:          "the kernel's mounts and ours are alternatives; runtime chooses between them",
	{"fusefs", "overlay"}:          "the kernel's mounts and ours are alternatives; runtime chooses between them",
	{"build", "importexport"}:      "the commands hand build a function that resolves an image",
	{"importexport", "build"}:      "what an image is made of does not matter to who moves it",
	{"cas/erofs", "cas/tarstream"}: "one format each; cas puts them together",
	{"cas/tarstream", "cas/erofs"}: "one format each; cas puts them together",
	{"cas", "container"}:           "the store does not know what refers to its blobs; it is told what to keep",
	{"overlay", "container"}:       "a mount is of layers, whatever container they belong to",
}

// testsMayImport are packages for tests, which any test may import.
var testsMayImport = []string{"fusefs/posixtest", "importexport/enginetest", "importexport/imageserver", "mountfd/leftover", "overlay/treetest", "runtime/hosttest"}

func TestImports(t *testing.T) {
	for _, f := range sources(t) {
		from := owner(f.dir)
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s: package %q has no line in mayImport: say what it may import", f.path, f.dir)
			continue
		}
		for _, imp := range f.syntax.Imports {
			p := strings.Trim(imp.Path.Value, `"`)
			if p != module && !strings.HasPrefix(p, module+"/") {
				continue
			}
			to := owner(strings.TrimPrefix(p, module+"/"))
			if to == from || below(to, from) || covers(allowed, to) || f.test && slices.Contains(testsMayImport, to) {
				continue
			}
			reason := never[[2]string{from, to}]
			if reason == "" {
				reason = "imports go one way: cmd → build, importexport → runtime → overlay, fusefs → cas; container → cas"
			}
			t.Errorf("%s: %s must not import %s: %s", f.at(imp), from, to, reason)
		}
	}
}

// forbidden are the selectors of the standard library that only the main function
// of cmd/plash may use, or no one.
var forbidden = map[string]string{
	"os.Exit":     "only main ends the process: return an error",
	"os.Stdout":   "only main knows the streams of the process: take an io.Writer",
	"log.Fatal":   "a library does not end the process: return an error",
	"log.Fatalf":  "a library does not end the process: return an error",
	"log.Fatalln": "a library does not end the process: return an error",
	"log.Panic":   "return an error",
	"log.Panicf":  "return an error",
	"log.Panicln": "return an error",
}

// exceptions are the files and directories that do it all the same, and why.
var exceptions = map[string]string{
	"cmd/plash/main.go":                      "is main",
	"bench":                                  "is a program",
	"importexport/imageserver/serve/main.go": "is a program",
	"runtime/init.go":                        "is the whole of the init process of a step",
	"fusefs/serve.go":                        "is the whole of the server process of a mount",
	"runtime/proot/inside.go":                "is the whole of a process that runs inside of proot",
	"runtime/proot_run.go":                   "gives the process' own streams to the command",
	"runtime/layer.go":                       "hands the process' own streams to the command, unless it is told others",
	"runtime/isolate.go":                     "hands the process' own streams to its stand-in",
	"runtime/isolate_stage.go":               "is the whole of a process that an engine starts",
	"runtime/isolate_supervise.go":           "hands the process' own streams to the engine",
	"runtime/stage.go":                       "hands the process' own streams to its stand-in",
	"runtime/stage_main.go":                  "is the whole of a stage",
}

func TestProcessIsMains(t *testing.T) {
	for _, f := range sources(t) {
		if f.test || exceptions[f.path] != "" || exceptions[f.dir] != "" {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				pkg, ok := n.X.(*ast.Ident)
				if !ok || pkg.Obj != nil { // Obj: a variable of that name
					return true
				}
				if reason, ok := forbidden[pkg.Name+"."+n.Sel.Name]; ok {
					t.Errorf("%s: %s.%s: %s", f.at(n), pkg.Name, n.Sel.Name, reason)
				}
			case *ast.CallExpr:
				fn, ok := n.Fun.(*ast.Ident)
				if ok && fn.Name == "panic" && fn.Obj == nil && !abortsHandler(n) {
					t.Errorf("%s: panic: return an error", f.at(n))
				}
			}
			return true
		})
	}
}

// abortsHandler reports whether a panic is the one that net/http documents for
// closing a connection without an answer.
func abortsHandler(call *ast.CallExpr) bool {
	sel, ok := call.Args[0].(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "ErrAbortHandler"
}

// A source is one Go file of the module.
type source struct {
	path   string // relative to the module, with slashes
	dir    string // its directory: the import path without the module's
	test   bool
	fset   *token.FileSet
	syntax *ast.File
}

func (f source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(n.Pos()).Line)
}

// sources parses all Go files of the module but those in the root.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, other := os.Stat(filepath.Join(p, "go.mod"))
			hidden := strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata"
			if p != "." && (hidden || other == nil) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(p) != ".go" || path.Dir(p) == "." {
			return nil
		}
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, p, nil, 0)
		if err != nil {
			return err
		}
		all = append(all, source{
			path: filepath.ToSlash(p), dir: path.Dir(filepath.ToSlash(p)),
			test: strings.HasSuffix(p, "_test.go"), fset: fset, syntax: syntax,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no Go files found")
	}
	return all
}

// owner is the package, or the one above it, that has a line in mayImport.
func owner(dir string) string {
	for p := dir; p != "."; p = path.Dir(p) {
		if _, ok := mayImport[p]; ok {
			return p
		}
	}
	return dir
}

// below reports whether package p lies below the package top.
func below(p, top string) bool { return strings.HasPrefix(p, top+"/") }

// covers reports whether a package is in a list, or below one that is.
func covers(list []string, p string) bool {
	return slices.ContainsFunc(list, func(top string) bool { return p == top || below(p, top) })
}
