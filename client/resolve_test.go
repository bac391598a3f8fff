package client

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

var resolveNow = time.Date(2026, 1, 8, 12, 0, 0, 0, time.UTC)

func testKey(s string) (k Key) {
	copy(k[:], s)
	return k
}

// testDirectory: alice is asking from alice/web. Bob has two live sessions,
// carol one and an offline one, dave none, erin waits at a terminal.
func testDirectory() *directory {
	session := func(member, label string, online bool, ago time.Duration, groups ...string) Peer {
		p := Peer{
			Key: testKey(member + "/" + label), Member: testKey(member), Name: member, Role: Session, Online: online,
			LastSeen: resolveNow.Add(-ago), Card: Card{Label: label, Cwd: "/src/" + label},
		}
		for _, g := range groups {
			p.Card.Groups = append(p.Card.Groups, Group{Name: g})
		}
		return p
	}
	d := &directory{self: testKey("alice/web"), now: resolveNow}
	for _, m := range []string{"alice", "bob", "carol", "dave", "erin"} {
		d.members = append(d.members, Member{Key: testKey(m), Name: m, Self: m == "alice"})
	}
	d.peers = []Peer{
		session("alice", "web", true, 0, "backend"),
		session("alice", "cli", true, 0),
		session("bob", "api", true, 0, "backend"),
		session("bob", "docs", true, 0),
		session("carol", "api", false, time.Hour, "backend"),
		session("carol", "ops", true, 0),
		session("carol", "old", false, 8*24*time.Hour, "backend"),
		session("dave", "lab", false, 48*time.Hour),
		{Key: testKey("erin"), Member: testKey("erin"), Name: "erin", Role: Person, Online: true, LastSeen: resolveNow},
	}
	return d
}

func TestResolve(t *testing.T) {
	for target, want := range map[string]string{
		"bob/api":              "bob/api",
		"bob/docs":             "bob/docs",
		"docs":                 "bob/docs",
		"api":                  "bob/api", // live before offline
		"carol/api":            "carol/api offline",
		"old":                  "carol/old offline",
		"ops":                  "carol/ops",
		"carol":                "carol/ops",
		"cli":                  "alice/cli",
		"alice":                "alice/cli", // own session never matches a name
		"alice/web":            "not_found",
		"web":                  "not_found",
		"bob":                  "ambiguous",
		"dave":                 "dave offline",
		"erin":                 "erin",
		"lab":                  "dave/lab offline",
		"frank":                "not_found",
		"":                     "invalid",
		"a b":                  "invalid",
		"BOB":                  "not_found",
		"@backend":             "bob/api carol/api",
		"@nobody":              "empty",
		"*":                    "alice/cli bob/api bob/docs carol/api carol/ops dave/lab erin",
		"@all":                 "alice/cli bob/api bob/docs carol/api carol/ops dave/lab erin",
		keyOf("bob/api"):       "bob/api",
		keyOf("carol"):         "carol offline", // a member's key in full is its own mailbox
		keyOf("dave"):          "dave offline",
		keyOf("frank"):         "not_found",
		keyOf("bob/")[:8]:      "ambiguous", // bob/api and bob/docs begin alike
		"0123456789ab":         "not_found",
		keyOf("dave/lab")[:16]: "dave/lab offline",
		keyOf("alice/web"):     "self",
		keyOf("erin")[:7]:      "not_found", // seven digits are no key
	} {
		to, _, err := testDirectory().resolve(target)
		var got []string
		for _, r := range to {
			s := r.Name
			if !r.Online {
				s += " offline"
			}
			got = append(got, s)
		}
		if len(to) > 1 {
			for i := range got {
				got[i] = strings.TrimSuffix(got[i], " offline")
			}
			slices.Sort(got)
		}
		if te := new(TargetError); errors.As(err, &te) {
			got = []string{string(te.Reason)}
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%q resolves to %q, want %q", target, g, want)
		}
	}
}

func keyOf(s string) string { return testKey(s).String() }

func TestResolveAmbiguousCandidatesAreInput(t *testing.T) {
	d := testDirectory()
	_, _, err := d.resolve("bob")
	te := new(TargetError)
	if !errors.As(err, &te) || len(te.Candidates) != 2 {
		t.Fatalf("%v", err)
	}
	for _, c := range te.Candidates {
		for _, input := range []string{c.FullName(), c.Key.String(), c.Key.String()[:16]} {
			if to, _, err := d.resolve(input); err != nil || to[0].Key != c.Key {
				t.Errorf("candidate %q is no input: %v", input, err)
			}
		}
		if c.Card.Cwd == "" {
			t.Errorf("candidate %s has no directory", c.FullName())
		}
	}
}

func TestResolveNearest(t *testing.T) {
	_, _, err := testDirectory().resolve("bob/apj")
	te := new(TargetError)
	if !errors.As(err, &te) || te.Reason != ReasonNotFound || len(te.Candidates) == 0 || te.Candidates[0].FullName() != "bob/api" {
		t.Errorf("%v %+v", err, te)
	}
}

func TestResolveList(t *testing.T) {
	to, failed, multi := testDirectory().all([]string{"bob/api", "@backend", "frank", "docs", "api"})
	var names []string
	for _, r := range to {
		names = append(names, r.Name)
	}
	if got := strings.Join(names, " "); got != "bob/api carol/api bob/docs" || len(failed) != 1 || !multi {
		t.Errorf("%s, failed %v, multi %v", got, failed, multi)
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"bob", "@backend", "*", "bob/api", "0123456789abcdef", "@", "/", "@all", "bob/", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		d := testDirectory()
		to, _, err := d.resolve(target)
		if (err == nil) != (len(to) > 0) {
			t.Fatalf("%d recipients and %v", len(to), err)
		}
		seen := map[Key]bool{}
		for _, r := range to {
			if r.Key == d.self || seen[r.Key] {
				t.Fatalf("%q reaches %s, oneself or twice", target, r.Name)
			}
			seen[r.Key] = true
		}
	})
}
