package client_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// startBroker is what claudemesh-broker --open does; its URL is what peers dial.
func startBroker() (url string, stop func()) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	store, err := sqlite.Open(ctx, filepath.Join(dir, "mesh.db"), sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	b, err := broker.New(ctx, broker.Config{Store: store, Open: true})
	if err != nil {
		log.Fatal(err)
	}
	srv := httptest.NewServer(b)
	return "ws" + strings.TrimPrefix(srv.URL, "http") + "/ws", func() {
		_ = b.Shutdown(ctx)
		srv.Close()
		_ = store.Close()
		_ = os.RemoveAll(dir)
	}
}

// A gateway founds a mesh, invites a second peer, and the two talk.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	url, stop := startBroker()
	defer stop()

	// Alice founds the mesh. The membership holds her keys: keep it in a 0600 file.
	membership, err := client.Found(ctx, url, "", "acme", "alice")
	if err != nil {
		log.Fatal(err)
	}
	// A session's key is its address; keep it with the mailbox, so that both survive a restart.
	alice, err := client.Dial(ctx, client.Options{
		Membership: membership, SessionSeed: client.Secret{1, 2, 3}, Card: client.Card{Label: "web"},
		Mailbox: client.MemoryMailbox(), // client.OpenMailbox keeps it on disk
	})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	if err := alice.Ready(ctx); err != nil {
		log.Fatal(err)
	}

	// Bob joins with the link that Alice gives him.
	invite, err := alice.NewInvite(ctx, "member", 1, time.Hour)
	if err != nil {
		log.Fatal(err)
	}
	invitation, err := client.LookUp(ctx, invite.Link, false)
	if err != nil {
		log.Fatal(err)
	}
	bobs, err := invitation.Join(ctx, "bob")
	if err != nil {
		log.Fatal(err)
	}
	bob, err := client.Dial(ctx, client.Options{Membership: bobs, SessionSeed: client.Secret{4, 5, 6}, Card: client.Card{Label: "api"}})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()
	if err := bob.Ready(ctx); err != nil {
		log.Fatal(err)
	}

	sent, err := alice.Send(ctx, client.Message{To: []string{"bob/api"}, Text: "have you seen this?"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent to", sent.Targets[0].Name)
	for m, err := range bob.Receive(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s from %s: %s\n", m.Mode, m.SenderName, m.Text)
		if err := m.Ack(ctx); err != nil { // until then it comes again after a restart
			log.Fatal(err)
		}
		break
	}
	// Output:
	// sent to bob/api
	// dm from alice/web: have you seen this?
}
