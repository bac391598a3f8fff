package mailbox

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// mem is the Mailbox in this process alone. What is over is dropped from its
// lists when they are next read or have grown to twice what is live, so that
// no write looks at more than its own message.
type mem struct {
	id  string
	hub hub

	mu       sync.Mutex
	closed   bool
	lastOut  int64
	lastIn   int64
	counters map[Lane]uint64
	outgoing map[wire.ID]*memOut
	live     []*memOut // in Number order: those with a stored or accepted recipient, and some that had one
	liveLen  int
	incoming map[int64]*memIn
	boxes    map[wire.Key]*memBox // by recipient
	byID     map[wire.ID][]*memIn
	owed     map[wire.ID]*memOwed // by mesh
	seen     map[seenKey]map[seenBy]int64
	floors   map[wire.ID]int64
	lanes    map[laneKey]*memLane
	meshes   map[wire.ID]*memMesh
	agents   map[int][]byte // as JSON
	memTrusts
	memSpread
}

var _ Mailbox = (*mem)(nil)

// NewMemory returns a Mailbox that is gone with the process: for load
// generators and tests.
func NewMemory() Mailbox {
	return &mem{
		id:        newID(),
		counters:  make(map[Lane]uint64),
		outgoing:  make(map[wire.ID]*memOut),
		incoming:  make(map[int64]*memIn),
		boxes:     make(map[wire.Key]*memBox),
		byID:      make(map[wire.ID][]*memIn),
		owed:      make(map[wire.ID]*memOwed),
		seen:      make(map[seenKey]map[seenBy]int64),
		floors:    make(map[wire.ID]int64),
		lanes:     make(map[laneKey]*memLane),
		meshes:    make(map[wire.ID]*memMesh),
		agents:    make(map[int][]byte),
		memTrusts: memTrusts{trusts: make(map[trustKey]Trust), pauses: make(map[wire.ID]int64)},
		memSpread: memSpread{texts: make(map[[16]byte]*memText), automatic: make(map[pair][]int64)},
	}
}

// ID returns the id that was drawn when the mailbox was made.
func (b *mem) ID() string { return b.id }

// Watch returns a channel of hints.
func (b *mem) Watch(ctx context.Context) <-chan struct{} { return b.hub.add(ctx) }

// WatchClosely is Watch: nobody else has this mailbox.
func (b *mem) WatchClosely(ctx context.Context) <-chan struct{} { return b.hub.add(ctx) }

// Close ends the use of the mailbox.
func (b *mem) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// do runs f under the lock and hints at the watchers if f says that it changed
// something.
func (b *mem) do(ctx context.Context, f func() (changed bool, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	changed, err := b.locked(f)
	if err == nil && changed {
		b.hub.notify()
	}
	return err
}

func (b *mem) locked(f func() (bool, error)) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, ErrClosed
	}
	return f()
}

// look is do for what changes nothing.
func (b *mem) look(ctx context.Context, f func()) error {
	return b.do(ctx, func() (bool, error) { f(); return false, nil })
}

// memMesh is what is known of one mesh.
type memMesh struct {
	version    int64
	statements []Statement
	hashes     map[[32]byte]struct{}
	peers      map[wire.Key]KnownPeer
	keys       map[uint64][32]byte
}

func (b *mem) mesh(id wire.ID) *memMesh {
	m, ok := b.meshes[id]
	if !ok {
		m = &memMesh{
			hashes: make(map[[32]byte]struct{}),
			peers:  make(map[wire.Key]KnownPeer),
			keys:   make(map[uint64][32]byte),
		}
		b.meshes[id] = m
	}
	return m
}

// SaveStatements appends statements.
func (b *mem) SaveStatements(ctx context.Context, mesh wire.ID, version int64, s []Statement) (fresh []bool, err error) {
	hashes := make([][32]byte, len(s))
	for i, st := range s {
		if err := checkStatement(st); err != nil {
			return nil, err
		}
		body, err := wire.Marshal(st)
		if err != nil {
			return nil, err
		}
		hashes[i] = sha256.Sum256(body)
	}
	fresh = make([]bool, len(s))
	err = b.do(ctx, func() (bool, error) {
		m := b.mesh(mesh)
		for i, st := range s {
			if _, known := m.hashes[hashes[i]]; !known {
				m.hashes[hashes[i]] = struct{}{}
				m.statements = append(m.statements, st)
				fresh[i] = true
			}
		}
		m.version = max(m.version, version)
		return true, nil
	})
	return fresh, err
}

// Statements returns the statements of a mesh.
func (b *mem) Statements(ctx context.Context, mesh wire.ID) (version int64, s []Statement, err error) {
	err = b.look(ctx, func() {
		m := b.mesh(mesh)
		version, s = m.version, slices.Clone(m.statements)
	})
	return version, s, err
}

// SavePeers inserts or updates peers.
func (b *mem) SavePeers(ctx context.Context, mesh wire.ID, peers []KnownPeer) error {
	return b.do(ctx, func() (bool, error) {
		m := b.mesh(mesh)
		for _, p := range peers {
			m.peers[p.Key] = mergePeer(m.peers[p.Key], p)
		}
		return len(peers) > 0, nil
	})
}

// Peers returns the known peers of a mesh, the last seen first.
func (b *mem) Peers(ctx context.Context, mesh wire.ID) (peers []KnownPeer, err error) {
	err = b.look(ctx, func() {
		peers = slices.SortedFunc(maps.Values(b.mesh(mesh).peers), func(a, b KnownPeer) int {
			if a.LastSeen != b.LastSeen {
				return compare(b.LastSeen, a.LastSeen)
			}
			return slices.Compare(a.Key[:], b.Key[:])
		})
	})
	return peers, err
}

// SaveKey stores a mesh key.
func (b *mem) SaveKey(ctx context.Context, mesh wire.ID, generation uint64, key [32]byte) error {
	return b.do(ctx, func() (bool, error) {
		m := b.mesh(mesh)
		have, known := m.keys[generation]
		if known && have != key {
			return false, errOtherKey(generation)
		}
		m.keys[generation] = key
		return !known, nil
	})
}

// Keys returns the mesh keys.
func (b *mem) Keys(ctx context.Context, mesh wire.ID) (keys map[uint64][32]byte, err error) {
	err = b.look(ctx, func() { keys = maps.Clone(b.mesh(mesh).keys) })
	return keys, err
}

// Forget deletes everything of a mesh.
func (b *mem) Forget(ctx context.Context, mesh wire.ID) error {
	return b.do(ctx, func() (bool, error) {
		maps.DeleteFunc(b.counters, func(l Lane, _ uint64) bool { return l.Mesh == mesh })
		b.dropOutgoing(func(o *memOut) bool { return o.Mesh == mesh })
		b.dropIncoming(func(m *memIn) bool { return m.Mesh == mesh })
		maps.DeleteFunc(b.seen, func(k seenKey, _ map[seenBy]int64) bool { return k.mesh == mesh })
		delete(b.floors, mesh)
		maps.DeleteFunc(b.lanes, func(k laneKey, _ *memLane) bool { return k.mesh == mesh })
		delete(b.meshes, mesh)
		maps.DeleteFunc(b.trusts, func(k trustKey, _ Trust) bool { return k.mesh == mesh })
		delete(b.pauses, mesh)
		b.held = slices.DeleteFunc(b.held, func(h Held) bool { return h.Mesh == mesh })
		return true, nil
	})
}

// Prune forgets what is over.
func (b *mem) Prune(ctx context.Context, keep time.Duration, now, serverNow int64) error {
	old := now - keep.Milliseconds()
	expired := min(now, serverNow) - seenGrace.Milliseconds()
	return b.do(ctx, func() (bool, error) {
		b.dropIncoming(func(m *memIn) bool { return m.ReadAt > 0 && m.ReadAt < old })
		b.dropOutgoing(func(o *memOut) bool { return o.settledBefore(old) })
		for key, by := range b.seen {
			maps.DeleteFunc(by, func(_ seenBy, expires int64) bool {
				if expires >= expired {
					return false
				}
				if floor, known := b.floors[key.mesh]; !known || expires > floor {
					b.floors[key.mesh] = expires
				}
				return true
			})
			if len(by) == 0 {
				delete(b.seen, key)
			}
		}
		for _, l := range b.lanes {
			l.gaps = slices.DeleteFunc(l.gaps, func(g missed) bool { return g.noticed < now-gapLife.Milliseconds() })
		}
		b.pruneLog(now - auditLife.Milliseconds())
		return true, nil
	})
}
