package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// parsed is what a line of the table below comes to.
type parsed struct {
	operands []string
	actions  []string
	mounts   string
	pair     string
	err      string
}

func TestParse(t *testing.T) {
	run := grammar{"CONTAINER", "[CMD…]"}
	export := grammar{"CONTAINER", "[FILE|-]"}
	mapping := grammar{"KEY", "[CONTAINER|'']"}
	build := grammar{"ACTIONS…"}
	foreign := grammar{"FILE", "[ARG…]"}
	tests := []struct {
		name string
		g    grammar
		line string
		want parsed
	}{
		{"plain", run, "2 ls -l", parsed{operands: []string{"2", "ls", "-l"}}},
		{"dashes", run, "2 -- ls -m x", parsed{operands: []string{"2", "ls", "-m", "x"}}},
		{"dashes first", run, "-- 2 ls", parsed{operands: []string{"2", "ls"}}},
		{"dashes first and between", run, "-- 2 -- ls -- x", parsed{operands: []string{"2", "ls", "--", "x"}}},
		{"dashes of the command", run, "2 -- -x -- y", parsed{operands: []string{"2", "-x", "--", "y"}}},
		{"no command", run, "2", parsed{operands: []string{"2"}}},
		{"no command but dashes", run, "2 --", parsed{operands: []string{"2"}}},
		{"option behind", run, "2 --mount a,b ls --mount c", parsed{operands: []string{"2", "ls", "--mount", "c"}, mounts: "a,b"}},
		{"option before", run, "--mount=a 2 ls", parsed{operands: []string{"2", "ls"}, mounts: "a"}},
		{"option joined", run, "-ma 2 ls", parsed{operands: []string{"2", "ls"}, mounts: "a"}},
		{"pair", run, "2 --pair u w ls", parsed{operands: []string{"2", "ls"}, pair: "u w"}},
		{"pair joined", run, "2 --pair=u w ls", parsed{operands: []string{"2", "ls"}, pair: "u w"}},
		{"pair cut", run, "2 --pair u", parsed{operands: []string{"2"}, err: "option --pair needs UP WORK"}},
		{"value missing", run, "2 -m", parsed{operands: []string{"2"}, err: "option --mount needs LIST"}},
		{"switch with value", run, "2 --quiet=x", parsed{operands: []string{"2"}, err: "option --quiet takes no value"}},
		{"switches joined", run, "-qm a 2", parsed{operands: []string{"2"}, mounts: "a"}},
		{"mistyped option", run, "--muont a 2", parsed{operands: []string{""}, actions: []string{"--muont", "a", "2"}, err: "unknown option or build action: --muont"}},
		{"unknown option", run, "2 --bogus", parsed{operands: []string{"2"}, err: "unknown option: --bogus"}},
		{"unknown short option", run, "2 -z", parsed{operands: []string{"2"}, err: "unknown option: -z"}},
		{"missing", run, "", parsed{err: "missing CONTAINER"}},
		{"missing behind option", run, "-m a", parsed{mounts: "a", err: "missing CONTAINER"}},
		{"help", run, "2 --help", parsed{operands: []string{"2"}, err: errHelp.Error()}},
		{"help of the command", run, "2 ls --help", parsed{operands: []string{"2", "ls", "--help"}}},

		{"actions", run, "--image a -- ls -l", parsed{operands: []string{"", "ls", "-l"}, actions: []string{"--image", "a"}}},
		{"short actions", run, "-i a -- ls", parsed{operands: []string{"", "ls"}, actions: []string{"-i", "a"}}},
		{"actions alone", run, "--image a", parsed{operands: []string{""}, actions: []string{"--image", "a"}}},
		{"option, then actions", run, "-m x --image a -- ls", parsed{operands: []string{"", "ls"}, actions: []string{"--image", "a"}, mounts: "x"}},
		{"an option among actions", run, "--image a -m x -- ls", parsed{operands: []string{"", "ls"}, actions: []string{"--image", "a", "-m", "x"}, err: "-m stands among the build actions and is none"}},
		{"an action that is defined there", run, "--image a --defpm mount {} --mount x -- ls", parsed{operands: []string{"", "ls"}, actions: []string{"--image", "a", "--defpm", "mount", "{}", "--mount", "x"}}},
		{"help among actions", run, "--image a --help", parsed{operands: []string{""}, actions: []string{"--image", "a", "--help"}, err: errHelp.Error()}},
		{"only the first dashes end actions", run, "--image a -- ls -- b", parsed{operands: []string{"", "ls", "--", "b"}, actions: []string{"--image", "a"}}},
		{"a command like an option", run, "--image a -- -m", parsed{operands: []string{"", "-m"}, actions: []string{"--image", "a"}}},

		{"file", export, "2 out.tar", parsed{operands: []string{"2", "out.tar"}}},
		{"stdout", export, "2 -", parsed{operands: []string{"2", "-"}}},
		{"option last", export, "2 - -m x", parsed{operands: []string{"2", "-"}, mounts: "x"}},
		{"actions with a file", export, "-i a -- out.tar", parsed{operands: []string{"", "out.tar"}, actions: []string{"-i", "a"}}},
		{"too much", export, "2 a b", parsed{operands: []string{"2", "a", "b"}, err: "unexpected argument: b"}},
		{"too much behind actions", export, "-i a -- b c", parsed{operands: []string{"", "b", "c"}, actions: []string{"-i", "a"}, err: "unexpected argument: c"}},

		{"second operand from actions", mapping, "k --image a", parsed{operands: []string{"k", ""}, actions: []string{"--image", "a"}}},
		{"the first is none", mapping, "--image a", parsed{err: "unknown option: --image"}},
		{"empty container", run, "'' ls", parsed{operands: []string{"", "ls"}, err: "CONTAINER is an empty word"}},
		{"empty command", run, "2 ''", parsed{operands: []string{"2", ""}}},
		{"empty file", export, "2 ''", parsed{operands: []string{"2", ""}, err: "FILE|- is an empty word"}},
		{"empty file behind actions", export, "-i a -- ''", parsed{operands: []string{"", ""}, actions: []string{"-i", "a"}, err: "FILE|- is an empty word"}},
		{"empty, repeated", grammar{"CONTAINER…"}, "1 2 ''", parsed{operands: []string{"1", "2", ""}, err: "CONTAINER is an empty word"}},
		{"empty, as it may be", mapping, "k ''", parsed{operands: []string{"k", ""}}},
		{"empty value of a pair", run, "2 --pair '' w ls", parsed{operands: []string{"2"}, err: "option --pair: an empty word"}},
		{"empty joined value", run, "2 --mount= ls", parsed{operands: []string{"2"}, err: "option --mount: an empty word"}},

		{"another program's words", foreign, "f --help -m x -- ''", parsed{operands: []string{"f", "--help", "-m", "x", "--", ""}}},
		{"options before them", foreign, "-m x f -q", parsed{operands: []string{"f", "-q"}, mounts: "x"}},
		{"help before them", foreign, "--help f", parsed{err: errHelp.Error()}},
		{"all of them another program's", grammar{"[ARG…]"}, "ps --help", parsed{operands: []string{"ps", "--help"}}},
		{"help alone is ours", grammar{"[ARG…]"}, "--help", parsed{err: errHelp.Error()}},

		{"none", grammar{}, "x", parsed{operands: []string{"x"}, err: "unexpected argument: x"}},

		{"build", build, "--image a --run -x b", parsed{operands: []string{"--image", "a", "--run", "-x", "b"}}},
		{"build keeps dashes", build, "-i a -- b", parsed{operands: []string{"-i", "a", "--", "b"}}},
		{"build help", build, "-i a --help", parsed{operands: []string{"-i", "a"}, err: errHelp.Error()}},
		{"build nothing", build, "", parsed{err: "missing ACTIONS"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got parsed
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			if !test.g.actions() {
				flags.StringVarP(&got.mounts, "mount", "m", "", "what to mount, a `LIST`")
				flags.Var(&pairValue{into: func(a, b string) { got.pair = a + " " + b }}, "pair", "a `UP WORK`")
				flags.BoolP("quiet", "q", false, "")
			}
			flags.BoolP("help", "h", false, "")
			a, err := parse(test.g, flags, words(test.line))
			got.operands, got.actions = a.operands, a.actions
			if err != nil {
				got.err = err.Error()
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("%q:\ngot  %+q\nwant %+q", test.line, got, test.want)
			}
		})
	}
}

// words splits a line at spaces; ” stands for the empty word.
func words(line string) []string {
	list := strings.Fields(line)
	for i := range list {
		if list[i] == "''" {
			list[i] = ""
		}
	}
	return list
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{
		"rnu": "run", "biuld": "build", "exprot-tar": "export-tar", "lst": "list", "export": "export-tar",
		"xyzzy": "", "": "", "r": "", strings.Repeat("build", 10000): "",
	} {
		if got := nearest(word); got != want {
			t.Errorf("nearest(%.20q) = %q, want %q", word, got, want)
		}
	}
}
