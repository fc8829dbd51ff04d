package container

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestImageConfig(t *testing.T) {
	for text, want := range map[string]ImageConfig{
		"":                {},
		"null":            {},
		"{}":              {},
		`{"config":null}`: {},
		`{"os":"linux","config":{"User":"1:2","Cmd":["a","b"],"Entrypoint":["/e"],"WorkingDir":"/w","Labels":{"x":"y"}}}`: {
			User: "1:2", Cmd: []string{"a", "b"}, Entrypoint: []string{"/e"}, WorkingDir: "/w",
		},
		`{"config":{"Env":["A=1","B","=x","C=a=b","N=\u0000","A=2",""]}}`: {Env: []string{"A=2", "C=a=b"}},
	} {
		r := Record{ID: 7}
		if text != "" {
			r.Config = json.RawMessage(text)
		}
		got, err := r.ImageConfig()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, expected %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"[]", `{"config":{"Env":"A=1"}}`, `{"config":{"Cmd":[1]}}`} {
		if got, err := (Record{Config: json.RawMessage(text)}).ImageConfig(); err == nil {
			t.Errorf("%s: %+v, expected an error", text, got)
		}
	}
}
