package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
)

// watchEvery is how often the parent and the profile are looked at.
const watchEvery = 2 * time.Second

// fleet is an agent's sessions, one in each mesh that was joined. It follows the
// profile: meshes are joined and left while the agent runs.
type fleet struct {
	profile *profile.Profile
	box     mailbox.Mailbox
	log     *slog.Logger
	cwd     string
	who     session

	mu    sync.Mutex // guards the following
	ships []ship     // in the order of the profile
}

// ship is the session in one mesh.
type ship struct {
	member client.Key // who left and joined again is another
	broker string     // its address, which can change
	pinned client.Key // its key, which a person can accept anew
	client *client.Client
	seat   *profile.Seat
}

func (s ship) close() {
	_ = s.client.Close()
	_ = s.seat.Close()
}

// Clients returns the sessions as they are now.
func (f *fleet) Clients() client.Set {
	f.mu.Lock()
	defer f.mu.Unlock()
	set := make(client.Set, len(f.ships))
	for i, s := range f.ships {
		set[i] = s.client
	}
	return set
}

// follow updates the fleet until ctx ends. A profile that cannot be read changes nothing.
func (f *fleet) follow(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		text := ""
		if err := f.update(ctx); err != nil && ctx.Err() == nil {
			text = err.Error()
		}
		if text != last && text != "" {
			f.log.Error("the profile is not followed", "error", text)
		}
		last = text
	}
}

// update starts sessions in meshes that were joined and ends those in meshes
// that were left.
func (f *fleet) update(ctx context.Context) error {
	meshes, err := f.profile.Meshes()
	if err != nil {
		return err
	}
	f.mu.Lock()
	old := map[client.Key]ship{}
	for _, s := range f.ships {
		old[s.member] = s
	}
	f.mu.Unlock()
	var next []ship
	var errs []error
	for _, m := range meshes {
		if f.who.mesh != "" && m.Mesh != f.who.mesh {
			continue
		}
		s, ok := old[m.MemberKey()]
		if ok && (s.broker != m.Broker || s.pinned != m.BrokerKey) { // frees the seat for its successor
			s.close()
			delete(old, s.member)
			ok = false
		}
		if !ok {
			if s, err = f.launch(ctx, m); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		delete(old, m.MemberKey())
		next = append(next, s)
	}
	f.mu.Lock()
	f.ships = next
	f.mu.Unlock()
	for _, s := range old {
		s.close()
	}
	return errors.Join(errs...)
}

// launch takes a seat in a mesh and connects from it.
func (f *fleet) launch(ctx context.Context, m client.Membership) (ship, error) {
	seat, err := f.profile.TakeSeat(m.MeshID, f.cwd, f.box.ID(), f.who.name)
	if err != nil {
		return ship{}, err
	}
	host, _ := os.Hostname()
	repo, branch := gitInfo(seat.Dir)
	c, err := client.Dial(ctx, client.Options{
		Membership: m, Role: client.Session, SessionSeed: client.Secret(seat.Key.Seed()), Mailbox: f.box, Logger: f.log,
		Card: client.Card{
			Label: seat.Label, Cwd: fit(seat.Dir), Host: fit(host), Repo: fit(repo), Branch: fit(branch), PeerType: "ai",
			Status: client.StatusIdle, Groups: slices.Clone(f.who.groups),
		},
	})
	if err != nil {
		return ship{}, errors.Join(err, seat.Close())
	}
	return ship{m.MemberKey(), m.Broker, m.BrokerKey, c, seat}, nil
}

// close ends every session and frees its seat.
func (f *fleet) close() {
	f.mu.Lock()
	ships := f.ships
	f.ships = nil
	f.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range ships {
		wg.Go(s.close)
	}
	wg.Wait()
}
