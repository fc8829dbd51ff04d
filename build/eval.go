package build

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Parse reads build actions as they stand on a command line, up to a "--" that
// the caller has split off. Words that are no actions are a [*UsageError]. Stdin is
// what --eval-stdin reads.
//
// Included files, the values of --import-env and the directory of --align-cwd are
// taken here; paths of --copy and --watch are not looked at yet.
func Parse(args []string, stdin io.Reader) (*Plan, error) {
	list, err := statements(args)
	if err != nil {
		return nil, err
	}
	e := newEvaluator(stdin)
	if err := e.evalAll(list); err != nil {
		return nil, err
	}
	return e.plan, nil
}

func newEvaluator(stdin io.Reader) *evaluator {
	return &evaluator{
		plan: &Plan{}, actions: builtins(), stdin: stdin,
		getenv: os.LookupEnv, getwd: workingDirectory,
	}
}

// workingDirectory is the physical path: the image knows nothing of links that
// lead there.
func workingDirectory() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// evaluator makes a plan of statements. Each action is a method, which either
// appends to the current layer or hands other statements back to eval.
type evaluator struct {
	plan      *Plan
	actions   *table
	current   *layer // nil: the layer has nothing in it yet
	namespace string // "": none

	open      []includedFile // what is being included, outermost first
	included  int            // how many files were
	stdin     io.Reader
	stdinRead bool

	getenv func(string) (string, bool)
	getwd  func() (string, error)
}

func (e *evaluator) evalAll(list []statement) error {
	for _, s := range list {
		a := e.actions.lookup(s.name.text)
		if a == nil {
			return e.actions.unknown(s.name.from, "unknown action "+s.name.text, s.name.text)
		}
		if err := e.call(a, s); err != nil {
			return err
		}
	}
	return nil
}

// call runs an action on arguments of the right number.
func (e *evaluator) call(a *action, s statement) error {
	switch n := len(s.args); {
	case a.max == 0 && n > 0:
		return s.usage("", "%s takes no arguments: %s", s.name.text, Quote(s.args[0].text))
	case n < a.min:
		return s.usage("an argument that begins with - is joined to the action: --"+a.Name+"=-ARG",
			"%s: missing argument: %s %s", s.name.text, s.name.text, a.Args)
	case a.max >= 0 && n > a.max:
		return s.usage("", "%s: one argument too many: %s", s.name.text, Quote(s.args[a.max].text))
	}
	return a.eval(e, s)
}

// callEach runs the action that the first argument names on each of the others.
func (e *evaluator) callEach(s statement, after func()) error {
	name := s.args[0]
	a := e.actions.bare(name.text)
	if a == nil {
		return e.actions.unknown(name.from, s.name.text+": unknown action "+Quote(name.text), name.text)
	}
	for _, arg := range s.args[1:] {
		one := statement{name: word{"--" + a.Name, name.from}, args: []word{arg}}
		if err := e.call(a, one); err != nil {
			return err
		}
		after()
	}
	return nil
}

// layerNow returns the layer that actions append to.
func (e *evaluator) layerNow() *layer {
	if e.current == nil {
		e.current = &layer{}
		e.plan.layers = append(e.plan.layers, e.current)
		if e.namespace != "" {
			e.emit("# namespace " + comment(e.namespace))
		}
	}
	return e.current
}

// emit appends text, of one or more lines, to the current layer.
func (e *evaluator) emit(text string) {
	l := e.layerNow()
	l.parts = append(l.parts, part{text: text})
}

func (e *evaluator) endLayer() { e.current = nil }

func (e *evaluator) image(s statement) error {
	name := s.args[0].text
	switch {
	case name == "":
		return s.usage("", "%s: the name is empty", s.name.text)
	case e.plan.Image != "":
		return s.usage("", "%s %s: a second image, after %s", s.name.text, Quote(name), Quote(e.plan.Image))
	case len(e.plan.layers) > 0:
		return s.usage("put it before the other actions", "%s %s comes after actions that run in it", s.name.text, Quote(name))
	}
	e.plan.Image = hostImage(s.args[0])
	return nil
}

func (e *evaluator) run(s statement) error {
	e.emit(strings.Join(s.texts(), "\n"))
	return nil
}

func (e *evaluator) layer(s statement) error {
	e.endLayer()
	if len(s.args) == 0 {
		return nil
	}
	return e.callEach(s, e.endLayer)
}

func (e *evaluator) mapArgs(s statement) error { return e.callEach(s, func() {}) }

func (e *evaluator) comment(statement) error { return nil }

func (e *evaluator) list(statement) error {
	e.plan.List = true
	return nil
}

// enterNamespace makes the name part of every further layer's script. A layer
// of its own for it would not do: it would change nothing, and keys are made of
// content.
func (e *evaluator) enterNamespace(s statement) error {
	if s.args[0].text == "" {
		return s.usage("", "%s: the name is empty", s.name.text)
	}
	e.endLayer()
	e.namespace = s.args[0].text
	return nil
}

// alignCwd makes the directory too: the host's may be one that is not shared with
// the image.
func (e *evaluator) alignCwd(statement) error {
	dir, err := e.getwd()
	if err != nil {
		return fmt.Errorf("--align-cwd: %w", err)
	}
	e.emit("mkdir -p -- " + Quote(dir) + "\ncd " + Quote(dir))
	return nil
}

// Characters of names. (A regexp at package level would cost every start of the
// program more than all else in this package.)
const (
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
)

// consistsOf reports whether s is not empty, begins with one of the characters of
// first and goes on with those or some of more.
func consistsOf(s, first, more string) bool {
	return s != "" && strings.IndexByte(first, s[0]) >= 0 && strings.TrimLeft(s, first+more) == ""
}

// isIdentifier reports whether s can be the name of a shell variable.
func isIdentifier(s string) bool { return consistsOf(s, letters+"_", digits) }

// importEnv leaves out what is not set, as docker run -e NAME does, so that
// http_proxy and its kin can be named wherever they may be of use. A value may be
// a password: it is not traced, and not shown with the script.
func (e *evaluator) importEnv(s statement) error {
	var exports, shown []string
	for _, arg := range s.args {
		name, as, renamed := strings.Cut(arg.text, ":")
		if !renamed {
			as = name
		}
		if !isIdentifier(as) || name == "" || strings.Contains(name, "=") {
			return usage(arg.from, "", "%s: not the name of a variable: %s", s.name.text, Quote(arg.text))
		}
		if value, ok := e.getenv(name); ok {
			exports = append(exports, "export "+as+"="+Quote(value))
			shown = append(shown, "# import-env "+arg.text)
		}
	}
	if len(exports) == 0 {
		return nil
	}
	l := e.layerNow()
	l.parts = append(l.parts, part{
		text:  "{ set +x; } 2>/dev/null\n" + strings.Join(exports, "\n") + "\nset -x",
		shown: strings.Join(shown, "\n"),
	})
	return nil
}

func (e *evaluator) watch(s statement) error {
	for _, arg := range s.args {
		if arg.text == "" {
			return usage(arg.from, "", "%s: the path is empty", s.name.text)
		}
		l := e.layerNow()
		l.parts = append(l.parts, part{watch: hostPath(arg), from: arg.from})
	}
	return nil
}

func (e *evaluator) bustCache(statement) error {
	e.emit("# never cached")
	e.layerNow().noCache = true
	return nil
}

func (e *evaluator) importModule(s statement) error {
	return s.usage("--defpm defines package managers, --include reads actions from a file",
		"%s is not supported: it loaded Python modules", s.name.text)
}
