package broker_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// metricName finds the metrics in an expression: nothing else in one begins
// like this.
var metricName = regexp.MustCompile(`\b(?:claudemesh|go|process)_[a-z0-9_]+`)

// exposed returns the names of /metrics, and the whole answer.
func exposed(w *world) (names []string, body string) {
	_, body, _ = w.http("GET", "/metrics", "", nil)
	for line := range strings.Lines(body) {
		if name := metricName.FindString(line); name != "" && !strings.HasPrefix(line, "#") {
			names = append(names, name)
		}
	}
	return names, body
}

// TestMetricsFromTheStart: a value that appears with its first count is one that
// no rate sees, so each stands at zero before.
func TestMetricsFromTheStart(t *testing.T) {
	t.Parallel()
	var disk atomic.Int64
	w := newWorld(t, func(c *broker.Config) { c.DiskUsage = func() (int, error) { return int(disk.Load()), nil } })
	_, body := exposed(w)
	for _, c := range wire.Codes() {
		for _, name := range []string{"claudemesh_requests_refused_total", "claudemesh_deliveries_bounced_total"} {
			if line := name + `{code="` + string(c) + `"} 0`; !strings.Contains(body, line+"\n") {
				t.Errorf("no line %q", line)
			}
		}
	}
	if !strings.Contains(body, "claudemesh_ready 1\n") {
		t.Error("not ready")
	}
	disk.Store(99)
	w.tick()
	if _, body := exposed(w); !strings.Contains(body, "claudemesh_ready 0\n") {
		t.Error("ready on a full disk")
	}
}

// TestDeploy: the dashboard and the alerts ask for metrics that exist, and
// docs/operations.md explains every metric and every alert.
func TestDeploy(t *testing.T) {
	t.Parallel()
	names, _ := exposed(newWorld(t, nil))
	read := func(name string) string {
		raw, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	doc := read("docs/operations.md")
	uses := func(file, text string) {
		t.Helper()
		found := metricName.FindAllString(text, -1)
		if len(found) == 0 {
			t.Errorf("%s: %q asks for no metric", file, text)
		}
		for _, n := range found {
			if !slices.Contains(names, n) {
				t.Errorf("%s: there is no metric %s", file, n)
			}
		}
	}
	for _, n := range names {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(n, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(n, "claudemesh_") && !strings.Contains(doc, "`"+base+"`") && !strings.Contains(doc, "`"+base+"{") {
			t.Errorf("%s is not explained", n)
		}
	}

	var dashboard struct {
		Title, UID string
		Panels     []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read("deploy/grafana.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			uses("grafana.json", target.Expr)
		}
	}
	if len(ids) < 10 || dashboard.UID == "" {
		t.Errorf("a dashboard of %d panels, %q", len(ids), dashboard.UID)
	}

	alerts := read("deploy/alerts.yml")
	rule := regexp.MustCompile(`(?m)^ +- alert: (\w+)\n +expr: (.+)\n`)
	rules := rule.FindAllStringSubmatch(alerts, -1)
	if len(rules) != strings.Count(alerts, "alert:") || len(rules) < 7 {
		t.Errorf("%d alerts are read of %d", len(rules), strings.Count(alerts, "alert:"))
	}
	code := regexp.MustCompile(`code[=~!]+"([a-z_|]+)"`)
	for _, r := range rules {
		uses("alerts.yml", r[2])
		if !strings.Contains(doc, "`"+r[1]+"`") {
			t.Errorf("%s is not explained", r[1])
		}
		for _, m := range code.FindAllStringSubmatch(r[2], -1) {
			for c := range strings.SplitSeq(m[1], "|") {
				if !wire.Code(c).Known() {
					t.Errorf("%s: there is no code %s", r[1], c)
				}
			}
		}
	}
}
