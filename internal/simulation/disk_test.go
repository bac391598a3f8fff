package simulation

import (
	"context"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// disk is the broker's store, which can freeze: its file is copied as it is
// at that instant, and from then on nothing is confirmed. The copy is what a kill
// at that instant would leave.
type disk struct {
	broker.Store
	path, image string
	armed       atomic.Int32 // the moment at which it will freeze
	frozen      atomic.Bool
	imaged      chan error
	lies        bool // a planted bug: it goes on confirming
}

func newDisk(s broker.Store, path, image string) *disk {
	return &disk{Store: s, path: path, image: image, imaged: make(chan error, 1)}
}

// The moments.
const (
	atOnce int32 = iota
	afterAccept
	afterSettle
)

// freeze copies the file while the writer waits, at the moment or, when that
// does not come, a second later.
func (d *disk) freeze(moment int) error {
	if moment != int(atOnce) {
		d.armed.Store(int32(moment))
		select {
		case err := <-d.imaged:
			return err
		case <-time.After(time.Second):
		}
	}
	d.Store.Settle(nil, func([]bool, error) {
		if !d.frozen.Load() {
			d.copy()
		}
	})
	return <-d.imaged
}

// point is called on the writer's goroutine between commit and word of it.
func (d *disk) point(moment int32) {
	if d.armed.CompareAndSwap(moment, atOnce) && !d.frozen.Load() {
		d.copy()
	}
}

func (d *disk) copy() {
	d.frozen.Store(true)
	err := copyFile(d.image, d.path)
	if err == nil {
		err = copyFile(d.image+"-wal", d.path+"-wal")
	}
	d.imaged <- err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

func (d *disk) mute() bool { return d.frozen.Load() && !d.lies }

func told[T any](d *disk, v T, err error) (T, error) {
	if d.mute() {
		var none T
		return none, broker.ErrClosed
	}
	return v, err
}

func (d *disk) Accept(m *broker.Message, done func(broker.Accepted, error)) int64 {
	return d.Store.Accept(m, func(a broker.Accepted, err error) {
		d.point(afterAccept)
		done(told(d, a, err))
	})
}

func (d *disk) Settle(s []broker.Settlement, done func([]bool, error)) {
	d.Store.Settle(s, func(settled []bool, err error) {
		d.point(afterSettle)
		done(told(d, settled, err))
	})
}

func (d *disk) PutPeer(ctx context.Context, p broker.Peer) (broker.PeerID, error) {
	id, err := d.Store.PutPeer(ctx, p)
	return told(d, id, err)
}

func (d *disk) ForgetPeers(ctx context.Context, before time.Time, keep []broker.PeerID, now time.Time, limit int) ([]broker.Forgotten, error) {
	f, err := d.Store.ForgetPeers(ctx, before, keep, now, limit)
	return told(d, f, err)
}

func (d *disk) Retry(ctx context.Context, deliveries []int64) ([]int, error) {
	n, err := d.Store.Retry(ctx, deliveries)
	return told(d, n, err)
}

func (d *disk) Lookup(ctx context.Context, sender broker.PeerID, id wire.ID) (hash [32]byte, known []broker.Outcome, err error) {
	hash, known, err = d.Store.Lookup(ctx, sender, id)
	known, err = told(d, known, err)
	return hash, known, err
}

func (d *disk) Status(ctx context.Context, mesh wire.ID, member wire.Key, ids []wire.ID) ([]broker.Outcome, error) {
	o, err := d.Store.Status(ctx, mesh, member, ids)
	return told(d, o, err)
}

func (d *disk) Expire(ctx context.Context, now time.Time, limit int) ([]broker.Outcome, error) {
	o, err := d.Store.Expire(ctx, now, limit)
	return told(d, o, err)
}
