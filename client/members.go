package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Member is a person or machine that belongs to the mesh.
type Member struct {
	Key    Key
	Name   string
	Role   string
	Joined int64 // Unix ms
	Self   bool
}

// Members returns the current members as far as this client knows.
func (c *Client) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Member
	for _, m := range c.roster.Members() {
		out = append(out, Member{Key: m.Key, Name: m.Name, Role: m.Role, Joined: m.Joined, Self: m.Key == c.member.Public()})
	}
	return out
}

func applyStatement(r *trust.Roster, s mailbox.Statement) (err error) {
	switch {
	case s.Removal != nil:
		_, err = r.AddRemoval(*s.Removal)
	case s.Close != nil:
		_, err = r.AddClose(*s.Close)
	default:
		_, err = r.Add(s.Certificate)
	}
	return err
}

// syncMembers brings the roster to a version that the broker has named.
func (c *Client) syncMembers(ctx context.Context, k *conn, version int64) error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	c.mu.Lock()
	known := c.version
	c.mu.Unlock()
	if version <= known {
		return nil
	}
	pages, err := k.members(ctx, known)
	if err != nil {
		return err
	}
	return c.applyMembers(ctx, known, pages)
}

// members asks for what changed after a version.
func (k *conn) members(ctx context.Context, since int64) (pages []*wire.MembersList, err error) {
	err = k.askPages(ctx, &wire.Members{Since: since}, func(f wire.Frame) {
		if l, ok := f.(*wire.MembersList); ok {
			pages = append(pages, l)
		}
	})
	return pages, err
}

// checkRollback is for a broker that shows an older membership than it showed
// before: one that was restored from a backup, or one that lies. It is taken
// as it is when it still has every removal that is known here; a lost removal is
// wire.CodeRosterRollback.
func (c *Client) checkRollback(ctx context.Context, k *conn) error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	pages, err := k.members(ctx, 0)
	if err != nil {
		return err
	}
	shown := map[wire.Sig]bool{}
	for _, p := range pages {
		for _, r := range p.Removals {
			shown[r.Sig] = true
		}
	}
	_, known, err := c.box.Statements(ctx, c.m.MeshID)
	if err != nil {
		return err
	}
	for _, s := range known {
		if s.Removal != nil && !shown[s.Removal.Sig] {
			return wire.Faultf(wire.CodeRosterRollback, "a removal is missing")
		}
	}
	return c.applyMembers(ctx, 0, pages)
}

// applyMembers verifies what the broker shows, applies what holds and saves it.
// A statement that does not verify is left out and reported: it proves a
// hostile or broken broker, and changes nothing.
func (c *Client) applyMembers(ctx context.Context, known int64, pages []*wire.MembersList) error {
	if len(pages) == 0 {
		return nil
	}
	version := pages[len(pages)-1].Version
	if version < known {
		return wire.Faultf(wire.CodeRosterRollback, "")
	}
	var list []mailbox.Statement
	var keys []wire.KeyBox
	for _, p := range pages {
		for _, cert := range p.Certificates {
			list = append(list, mailbox.Statement{Certificate: cert})
		}
		for i := range p.Removals {
			list = append(list, mailbox.Statement{Removal: &p.Removals[i]})
		}
		for i := range p.Closes {
			list = append(list, mailbox.Statement{Close: &p.Closes[i]})
		}
		keys = append(keys, p.Keys...)
	}
	var good []mailbox.Statement
	var gone []Key
	var fatal error
	c.mu.Lock()
	for _, s := range list {
		err := applyStatement(c.roster, s)
		if err != nil {
			c.log.Warn("a statement does not verify", "error", err)
			if !errors.Is(err, wire.Faultf(wire.CodeGenerationFork, "")) {
				continue
			}
			fatal = err
		}
		good = append(good, s)
		if s.Removal != nil {
			if r, err := trust.ParseRemoval(*s.Removal); err == nil {
				gone = append(gone, r.Member)
			}
		}
	}
	c.dropStanding()
	c.version, c.generation = version, pages[0].Generation
	c.mu.Unlock()
	if err := c.box.SaveStatements(ctx, c.m.MeshID, version, good); err != nil {
		return err
	}
	for _, k := range gone {
		if err := c.box.Drop(ctx, c.m.MeshID, k, wire.CodeRemoved, c.now().UnixMilli()); err != nil {
			return err
		}
	}
	if fatal != nil {
		return fatal
	}
	return c.takeKeys(ctx, keys)
}

// dropStanding forgets the peers of members that stand no more. c.mu is held.
func (c *Client) dropStanding() {
	for key, p := range c.peers {
		if c.roster.Standing(p.Member) != nil {
			delete(c.peers, key)
		}
	}
}

// takeKeys opens the boxes of new mesh keys, checks each against the removal
// that announced it, and keeps it.
func (c *Client) takeKeys(ctx context.Context, boxes []wire.KeyBox) error {
	for _, b := range boxes {
		shared, err := seal.NewShared(c.member, b.Issuer)
		if err != nil {
			return err
		}
		key, err := seal.OpenMeshKeyBox(c.m.MeshID, b.Box, shared)
		if err != nil || key.Generation != b.Generation {
			c.log.Warn("a mesh key does not open", "generation", b.Generation)
			continue
		}
		c.mu.Lock()
		want, ok := c.roster.KeyHash(b.Generation)
		c.mu.Unlock()
		if !ok || want != trust.KeyHash(c.m.MeshID, key.Generation, key.Key) {
			return wire.Faultf(wire.CodeGenerationFork, "the key is not the one that the removal announced")
		}
		if err := c.keepKey(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) keepKey(ctx context.Context, key seal.MeshKey) error {
	if err := c.box.SaveKey(ctx, c.m.MeshID, key.Generation, key.Key); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[key.Generation] = key.Key
	return nil
}

// showCardIfStale seals the card again when a newer mesh key came with the
// connection, or when it was changed while the connection was made.
func (c *Client) showCardIfStale(ctx context.Context, k *conn) error {
	c.mu.Lock()
	raw, err := wire.Marshal(c.card)
	stale := c.sealingKey().Generation != c.shownGeneration || !bytes.Equal(raw, c.sealed.raw)
	c.mu.Unlock()
	if err != nil || !stale {
		return err
	}
	return c.showCard(ctx, k)
}

// ErrForbidden says that this member's role does not allow it.
var ErrForbidden = errors.New("only the owner or an admin may do that")

// signer is the key that this client signs invites and removals with: the
// owner's where it is, else an admin's own.
func (c *Client) signer() (trust.SecretKey, error) {
	switch {
	case !c.m.OwnerSeed.IsZero():
		return trust.SecretKeyFromSeed(c.m.OwnerSeed), nil
	case c.m.Role == trust.RoleAdmin:
		return c.member, nil
	}
	return trust.SecretKey{}, ErrForbidden
}

// Leave takes this member out of the mesh: it signs its own removal. The next
// admin to connect issues a new mesh key. The caller then forgets the membership.
func (c *Client) Leave(ctx context.Context) error {
	k, err := c.online()
	if err != nil {
		return err
	}
	for try := 0; ; try++ {
		c.mu.Lock()
		rm := trust.Removal{
			Mesh: c.m.MeshID, Member: c.member.Public(), Revoked: c.clock(), Reason: trust.ReasonLeft, MembersVersion: c.version,
			Kept: c.roster.AdmittedUnder(c.member.Public()), // nobody, unless an admin leaves
		}
		c.mu.Unlock()
		_, err := k.ask(ctx, &wire.Remove{Removal: trust.SignRemoval(c.member, rm)})
		if !errors.Is(err, wire.Faultf(wire.CodeStaleMembers, "")) || try == 5 {
			return err
		}
		if err := c.refreshMembers(ctx, k); err != nil {
			return err
		}
	}
}

// Remove takes a member out of the mesh, closes the invites by which it could come
// back, and issues the next mesh key to those who stay. It returns the ids of
// the open invites that this voided: they hold the old key and must be issued again.
func (c *Client) Remove(ctx context.Context, member Key) (voided []ID, err error) {
	k, err := c.online()
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		voided, err = c.removeOnce(ctx, k, member, trust.ReasonRemoved)
		stale := errors.Is(err, wire.Faultf(wire.CodeStaleMembers, "")) && try < 5
		unknown := errors.Is(err, ErrForbidden) && try == 0 // it may have joined a moment ago
		if !stale && !unknown {
			return voided, err
		}
		if err := c.refreshMembers(ctx, k); err != nil {
			return nil, err
		}
	}
}

// refreshMembers reads the membership again, whatever version is known.
func (c *Client) refreshMembers(ctx context.Context, k *conn) error {
	return c.syncMembers(ctx, k, 1<<62)
}

func (c *Client) removeOnce(ctx context.Context, k *conn, member Key, reason string) ([]ID, error) {
	signer, err := c.signer()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	req, key, err := c.buildRemoval(signer, member, reason)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	reply, err := k.ask(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := c.keepKey(ctx, key); err != nil {
		return nil, err
	}
	if err := c.refreshMembers(ctx, k); err != nil {
		return nil, err
	}
	ok, _ := reply.(*wire.OK)
	if ok == nil {
		return nil, nil
	}
	return ok.Voided, nil
}

// buildRemoval makes a removal with the next mesh key boxed to all who stay. c.mu is held.
func (c *Client) buildRemoval(signer trust.SecretKey, member Key, reason string) (*wire.Remove, seal.MeshKey, error) {
	if !c.roster.MayRemove(signer.Public(), member) {
		return nil, seal.MeshKey{}, ErrForbidden
	}
	target, _ := c.roster.Known(member)
	old := c.sealingKey()
	key := seal.NewMeshKey(max(c.generation, c.roster.LatestGeneration()) + 1)
	rm := trust.Removal{
		Mesh: c.m.MeshID, Member: member, Revoked: c.clock(), Reason: reason, MembersVersion: c.version,
		Kept: c.roster.AdmittedUnder(member), Generation: key.Generation,
		KeyHash: trust.KeyHash(c.m.MeshID, key.Generation, key.Key),
	}
	req := &wire.Remove{
		Issuer: c.member.Public(), Previous: old.Secret(c.m.MeshID, trust.PreviousKey(key.Key)),
	}
	if !target.Invite.IsZero() && (signer.Public() == c.m.Owner || signer.Public() == target.Issuer) {
		admitted := slices.DeleteFunc(c.roster.AdmittedBy(target.Invite), func(k Key) bool { return k == member })
		req.Closes = append(req.Closes, trust.SignClose(signer, c.m.MeshID, target.Invite, admitted))
	}
	req.Removal = trust.SignRemoval(signer, rm)
	for _, m := range c.roster.Members() {
		if m.Key == member {
			continue
		}
		shared, err := seal.NewShared(c.member, m.Key)
		if err != nil {
			return nil, key, err
		}
		req.Boxes = append(req.Boxes, wire.KeyBoxTo{To: m.Key, Box: key.Box(c.m.MeshID, shared)})
	}
	return req, key, nil
}

// rekey issues the next mesh key after members have left by themselves, when
// this client may: it signs the removal again, with a key.
func (c *Client) rekey(ctx context.Context, k *conn) error {
	if _, err := c.signer(); err != nil || c.role == Observer {
		return nil // a plain member leaves it to the next admin
	}
	c.mu.Lock()
	left := c.roster.Unkeyed()
	c.mu.Unlock()
	for _, member := range left {
		_, err := c.removeOnce(ctx, k, member, trust.ReasonLeft)
		if err != nil && !errors.Is(err, ErrForbidden) && !errors.Is(err, wire.Faultf(wire.CodeStaleMembers, "")) {
			return err
		}
	}
	return nil
}

// online returns the live connection, or an error that says why there is none.
func (c *Client) online() (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.conn != nil:
		return c.conn, nil
	case c.state.Err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, c.state.Err)
	}
	return nil, ErrUnreachable
}
