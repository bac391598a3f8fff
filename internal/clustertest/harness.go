package clustertest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
)

// Long reports whether the soak runs.
func Long() bool { return os.Getenv("SOAK") != "" }

// Pick chooses by Long.
func Pick[T any](short, soak T) T {
	if Long() {
		return soak
	}
	return short
}

// Aside lets short runs, which mostly wait, run at the same time. A soak measures.
func Aside(t *testing.T) {
	if !Long() {
		t.Parallel()
	}
}

// Found founds a mesh and joins n-1 more members.
func Found(t testing.TB, url string, n int) []client.Membership {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	owner, err := client.Found(ctx, url, "", "mesh", "m0")
	Must(t, err)
	members := []client.Membership{owner}
	c, err := client.Dial(ctx, client.Options{Membership: owner, Role: client.Observer})
	Must(t, err)
	defer c.Close()
	Must(t, c.Ready(ctx))
	for i := 1; i < n; i++ {
		inv, err := c.NewInvite(ctx, "member", 1, time.Hour)
		Must(t, err)
		look, err := client.LookUp(ctx, inv.Link, false)
		Must(t, err)
		m, err := look.Join(ctx, fmt.Sprintf("m%d", i))
		Must(t, err)
		members = append(members, m)
	}
	http.DefaultClient.CloseIdleConnections()
	return members
}

// Must ends the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until a condition holds; the test fails, and goes on, when it does not in time.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("not within %s: %s", within, what)
			return
		}
	}
}
