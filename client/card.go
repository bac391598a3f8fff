package client

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Group is a group that a session says it belongs to, with its role in it.
type Group struct {
	Name string `json:"name"`
	Role string `json:"role,omitempty"`
}

// The statuses of a session.
const (
	StatusIdle    = "idle"
	StatusWorking = "working"
	StatusDND     = "dnd"
)

// Card is what a peer says of itself. It travels sealed under the mesh key:
// members read it, the broker does not.
type Card struct {
	Label    string  `json:"label,omitempty"`
	Groups   []Group `json:"groups,omitempty"`
	Status   string  `json:"status,omitempty"`
	Summary  string  `json:"summary,omitempty"`
	Cwd      string  `json:"cwd,omitempty"`
	Host     string  `json:"host,omitempty"`
	Repo     string  `json:"repo,omitempty"`
	Branch   string  `json:"branch,omitempty"`
	PeerType string  `json:"peerType,omitempty"` // ai, human or connector
	Channel  string  `json:"channel,omitempty"`
	Model    string  `json:"model,omitempty"`
	Wake     Path    `json:"wake,omitempty"`    // how a message gets into the session now; "" unknown
	WokenAt  int64   `json:"wokenAt,omitempty"` // when one last did by that path, Unix ms of the broker's clock; 0 never
}

// Path is a way by which messages get into a session.
type Path = mailbox.Path

// The paths, from the best to the least.
const (
	ByMod    = mailbox.ByMod    // at once, idle or busy
	ByRewake = mailbox.ByRewake // at once when idle
	ByHooks  = mailbox.ByHooks  // at its next turn
	ByNone   = mailbox.ByNone   // when it looks
)

// Limits of a card's fields, in bytes and entries.
const (
	MaxSummary = 1024
	maxField   = 1024
	maxCard    = 3 << 10 // of the card as JSON; sealed it stays below the broker's limit of 4 KiB
	MaxGroups  = 32
)

// fits checks a card's shape, one's own before it is shown and others' when it is opened.
func (c *Card) fits() error {
	bad := func(what string) error { return wire.Faultf(wire.CodeBadCard, what) }
	if c.Label != "" && !trust.ValidName(c.Label) {
		return bad("label")
	}
	if c.Status != "" && c.Status != StatusIdle && c.Status != StatusWorking && c.Status != StatusDND {
		return bad("status")
	}
	if len(c.Groups) > MaxGroups {
		return bad("too many groups")
	}
	for _, g := range c.Groups {
		if !trust.ValidName(g.Name) || (g.Role != "" && !trust.ValidName(g.Role)) {
			return bad("group")
		}
	}
	for _, f := range c.texts() {
		if len(*f) > maxField {
			return bad("a field is too long")
		}
	}
	if raw, err := wire.Marshal(c); err != nil || len(raw) > maxCard {
		return bad("the card is too large: shorten the summary or leave groups")
	}
	return nil
}

// parseCard reads a card's JSON. A path that is not known here, of a newer
// peer, is an unknown one.
func parseCard(raw []byte) (card Card, err error) {
	if err := wire.Unmarshal(raw, &card); err != nil {
		return Card{}, wire.Faultf(wire.CodeBadCard, "not a card")
	}
	if !slices.Contains([]Path{ByMod, ByRewake, ByHooks, ByNone}, card.Wake) {
		card.Wake, card.WokenAt = "", 0
	}
	return card, card.fits()
}

func (c *Card) texts() []*string {
	return []*string{&c.Summary, &c.Cwd, &c.Host, &c.Repo, &c.Branch, &c.PeerType, &c.Channel, &c.Model}
}

// clip cuts what the machine says of itself, such as a very long path, to what fits.
func (c *Card) clip() {
	for _, f := range c.texts()[1:] {
		if n := 256; len(*f) > n {
			*f = strings.ToValidUTF8((*f)[:n], "")
		}
	}
}

// Peer is a session, or a person at a terminal, as its card and certificate show it.
type Peer struct {
	Mesh     string // the mesh's name
	Key      Key
	Member   Key
	Name     string // the member's, from its certificate
	Role     Role
	Online   bool
	LastSeen time.Time
	Card     Card      // zero when it could not be opened
	Woken    time.Time // Card.WokenAt by this machine's clock; zero: never

	attestation *wire.Attestation
	seq         uint64
	saved       time.Time // the LastSeen that the mailbox knows; zero: not this peer as it is
}

// FullName is member/label, or the member's name for a person.
func (p *Peer) FullName() string {
	if p.Role == Person || p.Card.Label == "" {
		return p.Name
	}
	return p.Name + "/" + p.Card.Label
}

// InGroup reports whether the peer says it belongs to a group.
func (p *Peer) InGroup(name string) bool {
	return slices.ContainsFunc(p.Card.Groups, func(g Group) bool { return g.Name == name })
}

// fromKnown makes a peer of what the mailbox remembers of it: offline.
func (c *Client) fromKnown(k mailbox.KnownPeer) (*Peer, bool) {
	p := &Peer{
		Mesh: c.m.Mesh, Key: k.Key, Member: k.Member, Role: k.Role, LastSeen: time.UnixMilli(k.LastSeen),
		attestation: k.Attestation, seq: k.CardSeq, saved: time.UnixMilli(k.LastSeen),
	}
	m, ok := c.roster.Known(k.Member)
	p.Name = m.Name
	if card, err := parseCard(k.Card); err == nil {
		p.Card = card
	}
	return p, ok
}

// fromWire verifies what the broker shows of a peer and opens its card. A peer
// whose proof fails is not shown at all; a card that is older than one seen
// before, or does not open, leaves the older one. c.mu is held.
func (c *Client) fromWire(w wire.Peer) (*Peer, error) {
	if err := c.roster.Standing(w.Pubkey); err != nil {
		return nil, err
	}
	m, _ := c.roster.Member(w.Pubkey)
	if _, clash := c.roster.Known(w.SessionPubkey); clash && w.SessionPubkey != w.Pubkey {
		return nil, wire.Faultf(wire.CodeBadAttestation, "a member key shown as a session")
	}
	p := &Peer{
		Mesh: c.m.Mesh, Key: w.SessionPubkey, Member: w.Pubkey, Name: m.Name, Role: Session, Online: w.Online,
		LastSeen: time.UnixMilli(w.LastSeen - c.offset.Load()), attestation: w.Attestation,
	}
	if w.SessionPubkey == w.Pubkey {
		p.Role = Person
	}
	old := c.peers[w.SessionPubkey]
	// What was verified before, for this peer or for a message, is not verified again.
	v := vouch(w.Pubkey, w.SessionPubkey, w.Attestation)
	if (old == nil || old.Member != w.Pubkey || !sameAttestation(old.attestation, w.Attestation)) && !c.vouches[v] {
		if err := trust.VerifyAttestation(c.m.MeshID, w.Pubkey, w.SessionPubkey, w.Attestation); err != nil {
			return nil, err
		}
		c.vouchFor(v)
	}
	if old != nil {
		if old.Member != p.Member {
			return nil, wire.Faultf(wire.CodeBadAttestation, "a session changed its member")
		}
		p.Card, p.seq = old.Card, old.seq
	}
	if w.Card == nil || w.Card.Seq <= p.seq {
		return p, nil
	}
	if err := trust.VerifyCard(c.m.MeshID, w.Pubkey, w.SessionPubkey, w.Card); err != nil {
		return nil, err
	}
	card, err := c.openCard(w.Card)
	if err != nil {
		c.log.Debug("card does not open", "peer", w.SessionPubkey.Short(), "error", err)
		return p, nil
	}
	p.Card, p.seq = card, w.Card.Seq
	return p, nil
}

func sameAttestation(a, b *wire.Attestation) bool { return a != nil && b != nil && *a == *b }

func (c *Client) openCard(w *wire.Card) (Card, error) {
	var card Card
	key, ok := c.keys[w.Generation]
	if !ok {
		return card, wire.Faultf(wire.CodeBadCard, "sealed under a mesh key that is not known here")
	}
	raw, err := seal.OpenCard(seal.MeshKey{Generation: w.Generation, Key: key}, w.Blob)
	if err != nil {
		return card, err
	}
	return parseCard(raw)
}

// sealedCard is a card as it was shown, with what it was made of.
type sealedCard struct {
	card *wire.Card
	raw  []byte
}

// helloCard is the card of a hello: the one shown before, when it still says what
// it should. Everyone who sees a new one verifies it, which after a restart of the
// broker is everyone for everyone. fresh reports that it is a new one.
func (c *Client) helloCard() (w *wire.Card, raw []byte, fresh bool, err error) {
	c.mu.Lock()
	last, gen := c.sealed, c.sealingKey().Generation
	raw, err = wire.Marshal(c.card)
	c.mu.Unlock()
	if err == nil && last.card != nil && last.card.Generation == gen && bytes.Equal(last.raw, raw) {
		return last.card, raw, false, nil
	}
	w, raw, err = c.sealCard()
	return w, raw, true, err
}

// sealCard seals this client's card under the newest mesh key it has.
func (c *Client) sealCard() (*wire.Card, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := wire.Marshal(c.card)
	if err != nil {
		return nil, nil, err
	}
	key := c.sealingKey()
	if key.Generation == 0 {
		return nil, nil, errNoKey
	}
	c.cardSeq = max(c.cardSeq+1, uint64(max(c.now().UnixMilli(), 0)))
	w := &wire.Card{Generation: key.Generation, Seq: c.cardSeq, Blob: seal.Card(key, raw)}
	trust.SignCard(c.session, c.m.MeshID, c.member.Public(), w)
	c.shownGeneration, c.sealed = key.Generation, sealedCard{w, raw}
	return w, raw, nil
}

var errNoKey = wire.Faultf(wire.CodeBadCard, "no mesh key is known here")

// sealingKey is the key of the newest generation whose issuer stands, or the
// newest one that is known here. c.mu is held.
func (c *Client) sealingKey() seal.MeshKey {
	gen := c.roster.Generation()
	if k, ok := c.keys[gen]; ok {
		return seal.MeshKey{Generation: gen, Key: k}
	}
	var best seal.MeshKey
	for g, k := range c.keys {
		if g > best.Generation && g < gen {
			best = seal.MeshKey{Generation: g, Key: k}
		}
	}
	return best
}

// Card returns what this client says of itself.
func (c *Client) Card() Card {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.card
}

// SetCard changes what this client says of itself: by fn, which gets a copy of
// the current card. Offline the change is shown with the next connection.
func (c *Client) SetCard(ctx context.Context, fn func(*Card)) error {
	c.mu.Lock()
	next := c.card
	next.Groups = slices.Clone(next.Groups)
	fn(&next)
	if err := next.fits(); err != nil {
		c.mu.Unlock()
		return err
	}
	c.card = next
	conn := c.conn
	c.mu.Unlock()
	if conn == nil || c.role == Observer {
		return nil
	}
	return c.showCard(ctx, conn)
}

func (c *Client) showCard(ctx context.Context, conn *conn) error {
	w, raw, err := c.sealCard()
	if err != nil {
		return err
	}
	if _, err := conn.ask(ctx, &wire.SetCard{Card: *w}); err != nil {
		return err
	}
	return c.rememberCard(ctx, w.Seq, raw)
}

// rememberCard keeps the highest seq that this key has signed.
func (c *Client) rememberCard(ctx context.Context, seq uint64, raw []byte) error {
	return c.box.SavePeers(ctx, c.m.MeshID, []mailbox.KnownPeer{{
		Key: c.self, Member: c.member.Public(), Role: c.role, Attestation: c.attestation,
		CardSeq: seq, Card: raw, LastSeen: c.now().UnixMilli(),
	}})
}

// SetSummary says in a sentence what this session works on.
func (c *Client) SetSummary(ctx context.Context, summary string) error {
	if len(summary) > MaxSummary {
		return wire.Faultf(wire.CodeTooLarge, "a summary holds at most 1024 bytes")
	}
	return c.SetCard(ctx, func(k *Card) { k.Summary = summary })
}

// SetStatus says idle, working or dnd.
func (c *Client) SetStatus(ctx context.Context, status string) error {
	return c.SetCard(ctx, func(k *Card) { k.Status = status })
}

// JoinGroup makes this session a reader of @name. Groups are labels that any
// member may take: they route, they do not guard.
func (c *Client) JoinGroup(ctx context.Context, name, role string) error {
	name = strings.TrimPrefix(name, "@")
	return c.SetCard(ctx, func(k *Card) {
		k.Groups = slices.DeleteFunc(k.Groups, func(g Group) bool { return g.Name == name })
		k.Groups = append(k.Groups, Group{Name: name, Role: role})
		slices.SortFunc(k.Groups, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })
	})
}

// LeaveGroup undoes JoinGroup. It reports whether the session was in the group.
func (c *Client) LeaveGroup(ctx context.Context, name string) (bool, error) {
	name, was := strings.TrimPrefix(name, "@"), false
	err := c.SetCard(ctx, func(k *Card) {
		n := len(k.Groups)
		k.Groups = slices.DeleteFunc(k.Groups, func(g Group) bool { return g.Name == name })
		was = len(k.Groups) < n
	})
	return was, err
}
