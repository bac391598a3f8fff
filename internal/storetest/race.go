package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var raceTests = []test{
	{"RaceAccept", testRaceAccept},
	{"RaceJoin", testRaceJoin},
	{"RaceName", testRaceName},
	{"RaceRemove", testRaceRemove},
	{"RaceIdentity", testRaceIdentity},
	{"RaceAll", testRaceAll},
}

const racers = 16

// Messages commit in the order of the calls, whoever makes them.
func testRaceAccept(w *world) {
	const each = 60
	messages := make([][]*broker.Message, racers)
	for i := range messages {
		for range each {
			messages[i] = append(messages[i], w.message(w.bob, w.alice))
		}
	}
	var mu sync.Mutex // makes the calls come one after another
	var called []wire.ID
	var told []wire.ID // by done, which needs no lock
	var firsts []int64
	done := make(chan struct{}, racers*each)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			for _, m := range messages[i] {
				mu.Lock()
				called = append(called, m.ID)
				w.s.Accept(m, func(a broker.Accepted, err error) {
					if err != nil {
						w.Error(err)
					}
					told = append(told, m.ID)
					firsts = append(firsts, a.First)
					done <- struct{}{}
				})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for range racers * each {
		wait(w, done)
	}
	if !slices.Equal(called, told) {
		w.Error("done was called in another order than Accept")
	}
	for i := 1; i < len(firsts); i++ {
		if firsts[i] < firsts[i-1]+2 {
			w.Fatalf("numbers %d, %d of two deliveries each", firsts[i-1], firsts[i])
		}
	}
	var queued []wire.ID
	for _, d := range w.queued(w.bob, 1<<20) {
		queued = append(queued, d.ID)
	}
	if !slices.Equal(called, queued) {
		w.Error("the queue has another order than Accept")
	}
}

// together runs f racers times at once and returns the errors.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// tally holds errors against how many of each there must be.
func (w *world) tally(errs []error, want map[error]int) {
	w.Helper()
	got := make(map[error]int)
	for _, err := range errs {
		found := false
		for target := range want {
			if errors.Is(err, target) {
				got[target]++
				found = true
				break
			}
		}
		if !found {
			w.Errorf("unexpected error %v", err)
		}
	}
	w.equal(got, want)
}

func testRaceJoin(w *world) {
	const uses, joiners = 7, 50
	in := w.newInvite(uses)
	joins := make([]broker.Join, joiners)
	for i := range joins {
		joins[i] = w.joining(in, fmt.Sprint("member ", i))
	}
	errs := together(joiners, func(i int) error {
		_, err := w.s.Join(w.ctx, joins[i])
		return err
	})
	w.tally(errs, map[error]int{nil: uses, broker.ErrInviteUsedUp: joiners - uses})
	got, err := w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	w.equal(got.Uses, uses)
	c := w.changes(1, w.founder.Key)
	w.equal(len(c.Members), uses)
	w.equal(c.Version, int64(1+uses))
}

func testRaceName(w *world) {
	in := w.newInvite(racers)
	joins := make([]broker.Join, racers)
	for i := range joins {
		joins[i] = w.joining(in, "bob")
	}
	errs := together(racers, func(i int) error {
		_, err := w.s.Join(w.ctx, joins[i])
		return err
	})
	w.tally(errs, map[error]int{nil: 1, broker.ErrNameTaken: racers - 1})
}

func testRaceRemove(w *world) {
	bob := w.join("bob")
	removals := make([]broker.Removal, racers)
	for i := range removals {
		removals[i] = w.removal(bob.Key)
		removals[i].NextKey = w.nextKey(w.founder.Key)
	}
	errs := together(racers, func(i int) error {
		_, err := w.s.Remove(w.ctx, removals[i])
		return err
	})
	w.tally(errs, map[error]int{nil: 1, broker.ErrStaleMembers: racers - 1})
	w.equal(w.getMesh().Generation, uint64(2))
}

func testRaceIdentity(w *world) {
	ids := make([]broker.BrokerIdentity, racers)
	for i := range ids {
		ids[i] = broker.BrokerIdentity{Seed: w.key(), TokenHash: w.key(), Created: t0}
	}
	created := make([]bool, racers)
	errs := together(racers, func(i int) (err error) {
		ids[i], created[i], err = w.s.Identity(w.ctx, ids[i])
		return err
	})
	w.tally(errs, map[error]int{nil: racers})
	made := 0
	for i := range ids {
		w.equal(ids[i], ids[0])
		if created[i] {
			made++
		}
	}
	w.equal(made, 1)
}

// Everything at once: nothing fails, and the counters agree afterwards.
func testRaceAll(w *world) {
	const rounds = 40
	eve := w.join("eve")
	sessions := []broker.PeerID{w.bob, w.session(eve.Key), w.session(eve.Key), w.session(w.founder.Key)}
	messages := make([][]*broker.Message, len(sessions))
	for i := range messages {
		for r := range rounds {
			m := w.message(sessions[i], sessions[(i+1)%len(sessions)])
			m.Expires = t0.Add(time.Duration(r) * time.Minute)
			messages[i] = append(messages[i], m)
		}
	}
	removal := w.removal(eve.Key)
	var wg sync.WaitGroup
	for i, me := range sessions {
		wg.Go(func() {
			done := make(chan struct{}, 2*rounds)
			for r, m := range messages[i] {
				w.s.Accept(m, func(a broker.Accepted, err error) {
					if err != nil {
						w.Error(err)
					}
					if r%2 == 0 {
						w.s.Settle([]broker.Settlement{end(m, a.First, 0)}, func([]bool, error) { done <- struct{}{} })
					} else {
						done <- struct{}{}
					}
				})
			}
			for range rounds {
				<-done
			}
		})
		wg.Go(func() {
			for r := range rounds {
				var err error
				switch (r + i) % 4 {
				case 0:
					_, err = w.s.Expire(w.ctx, t0.Add(time.Duration(r/2)*time.Minute), 10)
				case 1:
					_, _, err = w.s.Queued(w.ctx, me, broker.Place{}, 10, 1<<20)
				case 2:
					_, err = w.s.Stats(w.ctx)
				case 3:
					_, err = w.s.Prune(w.ctx, t0.Add(time.Duration(r/4)*time.Minute), 3)
				}
				if err != nil {
					w.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		if _, err := w.s.Remove(w.ctx, removal); err != nil {
			w.Error(err)
		}
	})
	wg.Wait()
	w.recount()
	w.s = w.reopen()
}
