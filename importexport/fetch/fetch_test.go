package fetch

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for field, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999999": 0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		if got := retryAfter(field, now); got != want {
			t.Errorf("%q: %v, want %v", field, got, want)
		}
	}
}

func TestStrongValidator(t *testing.T) {
	old, date := "Mon, 02 Jan 2006 15:04:05 GMT", "Mon, 02 Jan 2006 16:04:05 GMT"
	for _, c := range []struct{ etag, modified, date, want string }{
		{`"x"`, old, date, `"x"`},
		{`W/"x"`, old, date, ""},
		{"", old, date, old},
		{"", old, old, ""},
		{"", old, "", ""},
		{"", "", date, ""},
		{"", "yesterday", date, ""},
	} {
		h := http.Header{}
		h.Set("ETag", c.etag)
		h.Set("Last-Modified", c.modified)
		h.Set("Date", c.date)
		if got := strongValidator(h); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
