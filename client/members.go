package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Member is a person or machine that belongs to the mesh.
type Member struct {
	Key      Key
	Name     string
	Role     string    // as it is now
	Joined   int64     // Unix ms
	Invite   ID        // that it came by; zero for the founder
	Issuer   string    // who issued that: a member's name or "the owner"; "" for the founder
	LastSeen time.Time // the latest of its sessions and its person; zero when never
	Online   bool
	Self     bool
}

// Members returns the current members as far as this client knows.
func (c *Client) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Member
	seen := map[Key]*Peer{}
	for _, p := range c.peers {
		if old := seen[p.Member]; old == nil || p.Online && !old.Online || p.Online == old.Online && p.LastSeen.After(old.LastSeen) {
			seen[p.Member] = p
		}
	}
	all := c.roster.Members()
	founder := slices.IndexFunc(all, func(m trust.Member) bool { return m.Role == trust.RoleOwner })
	for _, m := range all {
		v := Member{
			Key: m.Key, Name: m.Name, Role: m.Role, Joined: m.Joined, Self: m.Key == c.member.Public(), Invite: m.Invite,
		}
		if !m.Invite.IsZero() {
			v.Issuer = c.issuerName(m.Issuer)
			if m.Issuer == c.m.Owner && founder >= 0 {
				v.Issuer = all[founder].Name
			}
		}
		if p := seen[m.Key]; p != nil {
			v.LastSeen, v.Online = p.LastSeen, p.Online
		}
		out = append(out, v)
	}
	return out
}

// issuerName says who issued an invite. c.mu is held.
func (c *Client) issuerName(issuer Key) string {
	if m, ok := c.roster.Known(issuer); ok {
		return m.Name
	}
	return "the owner"
}

// MemberRole is this member's role, as far as it is known here: owner, admin or member.
func (c *Client) MemberRole() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m, ok := c.roster.Known(c.member.Public()); ok {
		return m.Role
	}
	return c.m.Role
}

func applyStatement(r *trust.Roster, s mailbox.Statement) (err error) {
	switch {
	case s.Removal != nil:
		_, err = r.AddRemoval(*s.Removal)
	case s.Close != nil:
		_, err = r.AddClose(*s.Close)
	case s.Role != nil:
		_, err = r.AddRole(*s.Role)
	case s.Pause != nil:
		_, err = r.AddPause(*s.Pause)
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
	if err := c.applyMembers(ctx, known, pages); err != nil {
		return err
	}
	c.checkShown(version, pages)
	return nil
}

// anyVersion asks for what there is, whatever version that is.
const anyVersion = 1 << 62

// checkShown: a broker that names a version, or a mesh key, of which it does not
// show the statements keeps some back.
func (c *Client) checkShown(named int64, pages []*wire.MembersList) {
	c.mu.Lock()
	shown, generation := c.version, c.roster.LatestGeneration()
	c.mu.Unlock()
	switch {
	case named != anyVersion && shown < named:
		c.caught(wire.CodeMembersWithheld, "a version")
	case len(pages) > 0 && pages[0].Generation > generation:
		c.caught(wire.CodeMembersWithheld, "the removal that issued a mesh key")
	}
}

// readMembers reads the membership anew from its beginning: what a broker has kept
// back once, it does not show among what is new.
func (c *Client) readMembers(ctx context.Context, k *conn) error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	pages, err := k.members(ctx, 0)
	if err != nil {
		return err
	}
	return c.applyMembers(ctx, 0, pages)
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
// as it is when it still has everything that took rights away, as far as it is known
// here: a lost removal, close or role is wire.CodeRosterRollback.
func (c *Client) checkRollback(ctx context.Context, k *conn) error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	pages, err := k.members(ctx, 0)
	if err != nil {
		return err
	}
	shown := map[wire.Sig]bool{}
	for _, p := range pages {
		for _, list := range [][]wire.Signed{p.Removals, p.Closes, p.Roles} {
			for _, s := range list {
				shown[s.Sig] = true
			}
		}
	}
	_, known, err := c.box.Statements(ctx, c.m.MeshID)
	if err != nil {
		return err
	}
	for _, s := range known {
		for what, one := range map[string]*wire.Signed{"a removal": s.Removal, "the end of an invite": s.Close, "a change of a role": s.Role} {
			if one != nil && !shown[one.Sig] {
				return c.caught(wire.CodeRosterRollback, what+" is missing")
			}
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
		return c.caught(wire.CodeRosterRollback, "")
	}
	for _, p := range pages {
		if err := c.checkGenesis(p.Genesis); err != nil {
			return err
		}
	}
	list, keys := statementsOf(pages)
	good, gone, fatal := c.applyStatements(known, list)
	c.mu.Lock()
	c.version = version
	c.mu.Unlock()
	fresh, err := c.box.SaveStatements(ctx, c.m.MeshID, version, good)
	if err != nil {
		return err
	}
	c.chronicle(ctx, good, fresh)
	if err := c.keepPause(ctx); err != nil {
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
	c.poke() // a pause may be over
	return c.takeKeys(ctx, keys)
}

// checkGenesis: a broker that shows another founding than the one that was
// joined offers another owner.
func (c *Client) checkGenesis(shown wire.Signed) error {
	if shown.Sig == c.m.Genesis.Sig && bytes.Equal(shown.Body, c.m.Genesis.Body) {
		return nil
	}
	return c.caught(wire.CodeWrongOwner, "")
}

// statementsOf puts what the broker shows into the order in which a roster takes
// it: roles before the members that they let in, pauses after who signed them.
func statementsOf(pages []*wire.MembersList) (list []mailbox.Statement, keys []wire.KeyBox) {
	each := func(of func(*wire.MembersList) []wire.Signed, as func(*wire.Signed) mailbox.Statement) {
		for _, p := range pages {
			signed := of(p)
			for i := range signed {
				list = append(list, as(&signed[i]))
			}
		}
	}
	each(func(p *wire.MembersList) []wire.Signed { return p.Roles }, func(s *wire.Signed) mailbox.Statement { return mailbox.Statement{Role: s} })
	for _, p := range pages {
		for _, cert := range p.Certificates {
			list = append(list, mailbox.Statement{Certificate: cert})
		}
		keys = append(keys, p.Keys...)
	}
	each(func(p *wire.MembersList) []wire.Signed { return p.Removals }, func(s *wire.Signed) mailbox.Statement { return mailbox.Statement{Removal: s} })
	each(func(p *wire.MembersList) []wire.Signed { return p.Closes }, func(s *wire.Signed) mailbox.Statement { return mailbox.Statement{Close: s} })
	each(func(p *wire.MembersList) []wire.Signed { return p.Pauses }, func(s *wire.Signed) mailbox.Statement { return mailbox.Statement{Pause: s} })
	return list, keys
}

// applyStatements brings what verifies into the roster, and returns it, the
// members that it removes, and a fork, which is fatal after it was noted. With a known
// version above 0 all of it is said to be new since.
func (c *Client) applyStatements(known int64, list []mailbox.Statement) (good []mailbox.Statement, gone []Key, fatal error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range list {
		if f := new(wire.Fault); known > 0 && errors.As(undone(c.roster, s), &f) {
			c.caught(f.Code, "shown as new: "+f.Detail)
		}
	}
	for _, s := range list {
		err := applyStatement(c.roster, s)
		if err != nil {
			if f := new(wire.Fault); errors.As(err, &f) {
				c.caught(f.Code, "a statement: "+f.Detail)
			}
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
	return good, gone, fatal
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
		switch f := new(wire.Fault); {
		case errors.As(err, &f):
			c.caught(f.Code, f.Detail)
			continue
		case key.Generation != b.Generation:
			c.caught(wire.CodeStaleKey, "")
			continue
		}
		c.mu.Lock()
		want, ok := c.roster.KeyHash(b.Generation)
		old := b.Generation < c.roster.Generation()
		c.mu.Unlock()
		if !ok && old {
			c.caught(wire.CodeStaleKey, "")
			continue
		}
		if !ok || want != trust.KeyHash(c.m.MeshID, key.Generation, key.Key) {
			return c.caught(wire.CodeGenerationFork, "the key is not the one that the removal announced")
		}
		if err := c.keepKey(ctx, key); err != nil {
			return err
		}
	}
	c.mu.Lock()
	_, has := c.keys[c.roster.Generation()]
	stands := c.roster.Standing(c.member.Public()) == nil
	c.mu.Unlock()
	if stands && !has {
		c.caught(wire.CodeKeyWithheld, "")
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
